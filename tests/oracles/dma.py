"""Dynamic mask attention (arXiv 2508.02124): keys weighed, and chosen, by their values."""
import numpy as np
from common import attention, visible

small = {"window": 40, "block_size": 3}
planted = {"block_size": 1}
blind = True  # no query takes part in the choice
by_group = True


def example(q, k, causal=True, offset=None, scale=0.5):
    rng, h = np.random.default_rng(7), k.shape[1]
    dv = {16: 16, 24: 40}.get(q.shape[3], q.shape[3])  # of the common problems
    return {"dt": rng.normal(0, 0.1, (1, 1, h * dv, h)).astype(np.float32),
            "a": (scale * np.linspace(1, 2, h)).astype(np.float32)}


def twin(q, k, causal=True, offset=None):
    return {**example(q, k, scale=0.0), "window": 10**9}


def bias_of(v, dt, a, bias):
    z = np.einsum("bhjd,hdw->bwj", np.float64(v), np.float64(dt).reshape(*v.shape[1::2], -1))
    out = np.float64(a)[:, None] * np.log1p(np.exp(z))
    return np.exp(out) if bias == "exp" else out


def kept(q, k, v, dt, a, window=2048, bias="plain", rows="each", block_size=1, causal=True,
         offset=None):
    weight = np.float32(bias_of(v, dt, a, bias))  # [B, Hk, M]
    allowed = visible(q, k, causal, offset)[:, : k.shape[1]]
    out = np.zeros(allowed.shape, bool)
    for b, h, i in np.ndindex(out.shape[:3]):
        keys = np.flatnonzero(allowed[b, h, i] | (rows == "all"))
        out[b, h, i, keys[np.argsort(-weight[b, h, keys], kind="stable")[:window]]] = True
    for c in range(0, k.shape[2], block_size):
        block = out[..., c : c + block_size]
        block[:] = 2 * block.sum(-1, keepdims=True) > block.shape[3]
    return np.repeat(out & allowed, q.shape[1] // k.shape[1], 1)


def attend(q, k, v, dt, a, bias="plain", causal=True, offset=None, **params):
    weight = np.repeat(bias_of(v, dt, a, bias), q.shape[1] // k.shape[1], 1)[:, :, None]
    return attention(q, k, v, kept(q, k, v, dt, a, causal=causal, **params), bias=weight)
