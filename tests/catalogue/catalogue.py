"""Problems, parameters and oracles for every method, found from the records alone."""
import importlib
import pathlib
import sys
from contextlib import contextmanager

import numpy as np
import regard

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "oracles"))
import common  # noqa: E402

NAMES = regard.methods()
RECORDS = {name: regard.describe(name) for name in NAMES}

# batch, heads, KV heads, queries, keys, dim, dim of v, dtype
PROBLEMS = {
    "whole": (1, 2, 1, 256, 256, 32, 32, np.float32),
    "ragged": (2, 4, 2, 201, 201, 24, 40, np.float32),
    "strip": (1, 3, 1, 70, 333, 64, 64, np.float32),
    "aligned strip": (1, 2, 2, 128, 512, 16, 16, np.float32),
    "half": (1, 2, 1, 150, 214, 40, 40, np.float16),
    "one query": (1, 2, 1, 1, 300, 32, 32, np.float32),
    "one token": (1, 1, 1, 1, 1, 16, 16, np.float32),
}


def oracle(name):
    return importlib.import_module(name)


def normal(problem, seed=0):
    b, h, hk, nq, nk, d, dv, dtype = PROBLEMS[problem]
    g = np.random.default_rng(seed)
    shapes = (b, h, nq, d), (b, hk, nk, d), (b, hk, nk, dv)
    return [g.normal(0, s, shape).astype(dtype) for s, shape in zip((1.5, 1.5, 1), shapes)]


def causalities(name):
    return [True] if "causal" in RECORDS[name]["needs"] else [True, False]


def needs_tensors(name):
    return "weights" in RECORDS[name]["needs"]


def parameter_sets(name, q, k, causal):
    """Defaults, parameters that leave something out, each word of each choice, tensors."""
    module = oracle(name)
    tensors = module.example(q, k, causal) if hasattr(module, "example") else {}
    base = tensors if needs_tensors(name) else {}
    small = {**base, **getattr(module, "small", {})}
    words = [{**small, p["name"]: word} for p in RECORDS[name]["params"]
             for word in p.get("choices") or []]
    found = [base, small, {**small, **tensors}, *words]
    return [p for n, p in enumerate(found) if not any(p is o or p == o for o in found[:n]
                                                      if not tensors)]


def attend_oracle(name, q, k, v, causal, params):
    module = oracle(name)
    if hasattr(module, "attend"):
        return module.attend(q, k, v, causal=causal, **params)
    return common.attention(q, k, v, module.kept(q, k, v, causal=causal, **params))


def twin_of(name, q, k, causal):
    """Parameters of the dense twin, as text or as tensors; None where the record has none."""
    if needs_tensors(name) and hasattr(oracle(name), "twin"):
        return name, oracle(name).twin(q, k, causal)
    twin = RECORDS[name]["twin"]
    return (f"{name}:{twin}", {}) if twin else None


@contextmanager
def naive_at(dtype):
    common.precision, before = dtype, common.precision
    try:
        yield
    finally:
        common.precision = before


def assert_attention(got, exact, naive, v):
    """At most twice a naive implementation's error, and a few ulps of the largest term."""
    for g, e, n, largest in zip(got, exact, naive, (np.abs(np.float64(v)).max(), 1.0)):
        assert g.shape == e.shape
        empty = ~np.isfinite(e)
        assert np.array_equal(g[empty], e[empty])
        g, e, n = np.float64(g[~empty]), e[~empty], np.float64(n[~empty])
        if not e.size:
            continue
        unit = np.finfo(v.dtype if g is not got[1] else np.float32).eps
        room = 2 * np.abs(n - e).max() + 4 * unit * max(largest, np.abs(e).max())
        assert np.abs(g - e).max() <= room
