"""Regard: one engine for efficient attention.

    out, lse = regard.attend(q, k, v, method="xattention", threshold=0.9)
    plan = regard.plan(q, k, v, method="vertical_slash")   # look at it, save it, run it
    regard.methods(); regard.describe("xattention")

Tensors are [B, H, N, D] or [H, N, D]: numpy arrays (any strides, unaligned too), CPU tensors of any
framework that speaks DLPack, or torch's CUDA tensors (float16, bfloat16; on torch's own stream). k and v may have fewer heads than q (grouped queries): query head h
reads KV head h // (H / Hkv). Types: float64, float32, float16, bfloat16. Query i sits at position
i + Nk - Nq: the last query meets the last key. Nothing is modified and nothing is copied.

Errors are `regard.Error`, a ValueError, with one line that names what came and what is accepted.
NaN and infinity stay in the rows that read them: a query that reads a NaN gets NaN; an infinite
logit takes all weight (several share it evenly) and makes lse infinite; queries that do not read
the place are the same to the bit under the same plan. Methods that choose by content may choose
otherwise.
"""
import json as _json

import numpy as _np

from . import _arrays, _plan, _regard
from ._arrays import Error
from ._plan import FallbackWarning, Plan

version = __version__ = _regard.version

__all__ = ["Error", "FallbackWarning", "Plan", "Planted", "attend", "cpu_target", "describe",
           "explain", "hardware_threads", "methods", "plan", "planted", "planted_kinds", "version"]


def methods():
    """Names of all methods, sorted."""
    return _regard.methods()


def describe(name):
    """A method's record: dict of name, title, family, paper, year, phase, summary, when, cost,
    differs, needs, prefix, twin, params. `params` is a list of dicts of name, type, default, doc,
    for numbers min and max (inclusive; None: no bound), for text choices. Error offers the nearest
    names."""
    return _json.loads(_regard.record(name))


def _planned(arrays, q, method, causal, scale, numeric, threads, params):
    return _regard.Planned(*arrays, method, _arrays.parameters(params), causal, scale, numeric or "",
                           threads, _arrays.stream_of(q, arrays))


def attend(q, k, v, method="dense", *, causal=True, scale=None, numeric=None, threads=0, impl=None,
           strict=False, dtype=None, column_mass=False, **params):
    """Attention of q, k, v by a method of the catalogue.

    q [B, H, Nq, D], k [B, Hkv, Nk, D], v [B, Hkv, Nk, Dv], or all without B.
    method: a name, with its parameters as keywords, or a text 'xattention:threshold=0.9'.
    causal: a query reads keys up to its own position only. scale: multiplies q.k, 1/sqrt(D) if None.
    numeric: arithmetic of both products, 'f32' (if None), 'bf16', 'int8' or 'int16'; bf16 and int8
    need a CPU with AVX-512, BF16 and VNNI.
    threads: 0 = all cores; the result has the same bits for any number.
    impl: force 'cpu' or 'ref'. strict: Error, rather than FallbackWarning, where a slower
    implementation would run. dtype: of out; q's if None.

    Returns (out, lse): out [B, H, Nq, Dv]; lse [B, H, Nq] float32 (float64 with float64 out), natural
    log; a query that reads nothing has out 0 and lse -inf. With column_mass=True also
    mass [B, H, Nk]: the probability each key got, summed over queries. Arrays of q's framework.
    bfloat16 out for plain numpy input is an object with __dlpack__.

    Raises Error: unknown method or parameter, a value out of range, shapes or types that do not
    fit, a method that refuses these inputs (with its reason).
    """
    arrays = _arrays.inputs(q, k, v)
    if dtype is not None:
        dtype = _arrays.dtype_name(dtype)
    planned = _planned(arrays, q, method, causal, scale, numeric, threads, params)
    return _plan.run(planned, arrays, q, threads, impl, strict, dtype, column_mass)


def plan(q, k, v, method="dense", *, causal=True, scale=None, numeric=None, threads=0, **params):
    """The Plan that a method makes on these tensors; arguments as in `attend`.

    A plan says nothing of memory: made from CPU tensors it runs on CUDA tensors of the same sizes
    (`plan(q.cpu(), k.cpu(), v.cpu(), ...).attend(q, k, v)`), which is the way for methods that look
    at queries and keys and have no GPU stages. The copies are the caller's.
    """
    arrays = _arrays.inputs(q, k, v)
    return Plan(_planned(arrays, q, method, causal, scale, numeric, threads, params))


def explain(q, k, v, method="dense", *, causal=True, scale=None, numeric=None, threads=0, impl=None,
            dtype=None, column_mass=False, **params):
    """Which implementation `attend` would choose: a list, in order of preference, of dicts of name,
    chosen (bool) and refusal (why it cannot; '' if it can)."""
    arrays = _arrays.inputs(q, k, v)
    name = _arrays.dtype_name(dtype) if dtype is not None else arrays[0].dtype
    planned = _planned(arrays, q, method, causal, scale, numeric, threads, params)
    out, lse, mass = _plan.outputs(arrays, name, column_mass, q)
    found = planned.explain(*arrays, out.array, lse.array, mass and mass.array, threads, impl or "")
    return [dict(zip(("name", "chosen", "refusal"), c)) for c in found]


class Planted:
    """Made input with a known structure: q [B, H, Nq, D], k, v [B, Hkv, Nk, D], float32.

    Unpacks: `q, k, v = regard.planted("needle")`.
    """

    def __init__(self, name, made):
        self.name = name
        self.structure = planted_kinds()[name]
        self._made = made
        self.q, self.k, self.v = made.q, made.k, made.v

    def __iter__(self):
        return iter((self.q, self.k, self.v))

    def mask(self):
        """[B, H, Nq, Nk] bool: the planted pairs, before causality: what the best mask keeps."""
        out = _np.zeros(self.q.shape[:3] + self.k.shape[2:3], _np.uint8)
        self._made.mask_into(out)
        return out.view(bool)


def planted(name, *, batch=1, heads=4, kv_heads=None, tokens=2048, queries=None, dim=64, dim_v=None,
            seed=0):
    """Made input with a known structure (see `planted_kinds`); the same bits on every machine."""
    made = _regard.Made(name, batch, heads, kv_heads or heads, queries or tokens, tokens, dim,
                        dim_v or dim, seed)
    return Planted(name, made)


def planted_kinds():
    """dict of name -> which pairs are planted."""
    return _regard.planted_kinds()


def cpu_target():
    """The instruction set in use: 'AVX3', 'AVX2', ..."""
    return _regard.cpu_target()


def hardware_threads():
    """What threads=0 means."""
    return _regard.hardware_threads()
