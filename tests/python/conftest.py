"""The package `regard` from the build, judged by numpy in float64."""
import numpy as np
import pytest


def attention(q, k, v, allowed, scale=None):
    """Softmax attention in float64: (out, lse, column mass). allowed [B, H, Nq, Nk] bool."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    s = np.where(allowed, q @ k.swapaxes(-1, -2) * (scale or q.shape[-1] ** -0.5), -np.inf)
    top = s.max(-1, keepdims=True)
    w = np.where(allowed, np.exp(s - np.where(np.isfinite(top), top, 0)), 0)
    total = w.sum(-1, keepdims=True)
    p = w / np.where(total > 0, total, 1)
    with np.errstate(divide="ignore"):
        lse = (np.where(np.isfinite(top), top, 0) + np.log(total))[..., 0]
    return p @ v, lse, p.sum(2)


def causal(nq, nk):
    return np.arange(nk)[None] <= np.arange(nq)[:, None] + nk - nq


@pytest.fixture
def oracle():
    return attention


@pytest.fixture
def qkv():
    def make(b=2, h=6, hkv=2, nq=33, nk=77, d=24, dv=40, dtype=np.float32, seed=0):
        r = np.random.default_rng(seed)
        return tuple(r.standard_normal(s).astype(dtype)
                     for s in ((b, h, nq, d), (b, hkv, nk, d), (b, hkv, nk, dv)))
    return make


@pytest.fixture
def lower():
    return causal
