"""The C ABI through ctypes, as another runtime would use it: libregard.so and no header."""
import ctypes as c
import os
import pathlib

import numpy as np
import pytest
import regard

LIBRARY = pathlib.Path(os.environ.get("REGARD_BIN", "build/bin")) / "libregard.so"
F32, BF16, CPU, ALL, TILES, ONLY = 1, 3, 0, 0, 2, 0


class View(c.Structure):
    _fields_ = [("data", c.c_void_p), ("dtype", c.c_int32), ("device", c.c_int32),
                ("size", c.c_int64 * 4), ("stride", c.c_int64 * 4)]

    @classmethod
    def of(cls, x):
        return cls(x.ctypes.data, F32, CPU, x.shape, x.strides)


class Tensors(c.Structure):
    _fields_ = [("struct_size", c.c_size_t)] + [(n, View) for n in "q k v out lse pages".split()]


class Problem(c.Structure):
    _fields_ = [("struct_size", c.c_size_t)] + [
        (n, c.c_int64) for n in "batch heads kv_heads nq nk dk dv".split()] + [
        ("scale", c.c_float), ("offset", c.c_int64), ("sequences", c.c_int64),
        ("cu_q", c.c_void_p), ("cu_k", c.c_void_p)]


class Branch(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("cover", c.c_int32), ("causal", c.c_int32),
                ("left", c.c_int64), ("right", c.c_int64), ("sink", c.c_int64),
                ("list_batch", c.c_int64), ("list_heads", c.c_int64), ("bq", c.c_int32),
                ("bk", c.c_int32), ("start", c.c_void_p), ("index", c.c_void_p),
                ("pooled", c.c_int32), ("softcap", c.c_float), ("alibi", c.c_void_p),
                ("bias", View), ("bias_scale", c.c_void_p), ("key_bias", View),
                ("mask", c.c_void_p), ("mask_batch", c.c_int64), ("mask_heads", c.c_int64),
                ("norm", c.c_int32), ("sink_logit", c.c_void_p), ("shift", c.c_float)]


@pytest.fixture(scope="module")
def lib():
    x = c.CDLL(str(LIBRARY))
    x.regard_error.restype = c.c_char_p
    x.regard_runner_implementation.restype = c.c_char_p
    x.regard_runner_workspace.restype = c.c_int64
    for f in (x.regard_runner_workspace, x.regard_runner_implementation, x.regard_runner_free,
              x.regard_plan_free):
        f.argtypes = [c.c_void_p]
    return x


def problem(lib, **sizes):
    p = Problem()
    lib.regard_problem_init(c.byref(p))
    for name, n in sizes.items():
        setattr(p, name, n)
    return p


def branch(lib, **fields):
    b = Branch()
    lib.regard_branch_init(c.byref(b))
    for name, x in fields.items():
        setattr(b, name, x)
    return b


@pytest.fixture
def tensors(lib):
    g = np.random.default_rng(0)
    arrays = [g.standard_normal((1, h, n, 16), np.float32) for h, n in ((4, 40), (2, 96), (2, 96))]
    arrays += [np.full((1, 4, 40, 16), np.nan, np.float32), np.full((1, 4, 40, 1), np.nan, np.float32)]
    t = Tensors()
    lib.regard_tensors_init(c.byref(t))
    for name, x in zip(("q", "k", "v", "out", "lse"), arrays):
        setattr(t, name, View.of(x))
    return t, arrays


def exact(q, k, v, keep):
    s = np.einsum("bhid,bhjd->bhij", q, np.repeat(k, 2, 1)) / 4
    s = np.where(keep, s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    return np.einsum("bhij,bhjd->bhid", p / p.sum(-1, keepdims=True), np.repeat(v, 2, 1))


def run(lib, plan, t):
    runner = c.c_void_p()
    assert lib.regard_runner_create(plan, c.byref(t), None, c.byref(runner)) == 0, lib.regard_error()
    assert lib.regard_runner_implementation(runner) == b"cpu"
    assert lib.regard_runner_workspace(runner) == 0
    assert lib.regard_runner_run(runner, c.byref(t), None, c.c_int64(0), None) == 0
    lib.regard_runner_free(runner)


def test_runs_all_and_tiles(lib, tensors):
    t, (q, k, v, out, lse) = tensors
    p = problem(lib, heads=4, kv_heads=2, nq=40, nk=96, dk=16, dv=16)
    plan = c.c_void_p()
    b = branch(lib, cover=ALL, causal=1)
    assert lib.regard_plan_create(c.byref(p), c.byref(b), 1, ONLY, None, c.byref(plan)) == 0
    run(lib, plan, t)
    i, j = np.ogrid[:40, :96]
    np.testing.assert_allclose(out, exact(q, k, v, j <= i + 56), atol=1e-5)
    assert np.isfinite(lse).all()
    lib.regard_plan_free(plan)

    start, index = np.array([0, 1, 3, 5], np.int64), np.array([0, 1, 2, 0, 5], np.uint32)
    b = branch(lib, cover=TILES, bq=16, bk=16, start=start.ctypes.data, index=index.ctypes.data)
    assert lib.regard_plan_create(c.byref(p), c.byref(b), 1, ONLY, None, c.byref(plan)) == 0
    run(lib, plan, t)
    keep = np.zeros((40, 96), bool)
    for r in range(3):
        for col in index[start[r]:start[r + 1]]:
            keep[16 * r:16 * r + 16, 16 * col:16 * col + 16] = True
    np.testing.assert_allclose(out, exact(q, k, v, keep), atol=1e-5)
    lib.regard_plan_free(plan)


def test_reads_a_plan_as_text(lib, tensors):
    t, (q, k, v, out, _) = tensors
    plan, made = c.c_void_p(), regard.plan(q, k, v, "reformer", causal=True)
    assert lib.regard_plan_json(made.json().encode(), c.byref(plan)) == 0, lib.regard_error()
    run(lib, plan, t)
    np.testing.assert_array_equal(out, made.attend(q, k, v)[0])
    lib.regard_plan_free(plan)
    assert lib.regard_plan_json(b"{}", c.byref(plan)) == -1 and lib.regard_error()


def test_errors_say_why(lib, tensors):
    t, _ = tensors
    plan = c.c_void_p()

    def says(words, status):
        assert status == -1 and words in lib.regard_error().decode(), lib.regard_error()

    p, b = problem(lib, heads=4, kv_heads=3, nq=4, nk=4, dk=8, dv=8), branch(lib)
    says("KV heads", lib.regard_plan_create(c.byref(p), c.byref(b), 1, ONLY, None, c.byref(plan)))
    assert plan.value is None
    p.kv_heads, b.struct_size = 2, 3
    says("3 bytes", lib.regard_plan_create(c.byref(p), c.byref(b), 1, ONLY, None, c.byref(plan)))
    says("null", lib.regard_plan_create(None, c.byref(b), 1, ONLY, None, c.byref(plan)))
    start, index = np.array([0, 1], np.int64), np.array([9], np.uint32)
    b = branch(lib, cover=TILES, bq=16, bk=16, start=start.ctypes.data, index=index.ctypes.data)
    says("", lib.regard_plan_create(c.byref(p), c.byref(b), 1, ONLY, None, c.byref(plan)))
    assert lib.regard_error()
    says("unknown", lib.regard_plan_method(b"dense2", c.byref(t), 1, c.c_float(float("nan")),
                                           c.byref(plan)))
    b = branch(lib)
    assert lib.regard_plan_create(c.byref(p), c.byref(b), 1, ONLY, None, c.byref(plan)) == 0
    says("the plan is for", lib.regard_attend(plan, c.byref(t), None, None))
    lib.regard_plan_free(plan)
    lib.regard_plan_free(None)
