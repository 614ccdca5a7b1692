"""Scatterbrain (arXiv 2110.15343), section 4: exact on a window, random features elsewhere."""
import functools

import common
import numpy as np
from common import normals, positions, repeat_heads, visible

small = {"window": 37, "features": 50, "seed": 3}


@functools.cache
def directions(seed, count, d):
    w = normals(seed, 0, max(1, (count or int(d * np.log(d))) // 2), d).astype(np.float32)
    return np.concatenate([w, -w])


def phi(x, w):  # E[phi(q).phi(k)] = exp(q.k / sqrt(d))
    x = np.asarray(x, common.precision) * common.precision(x.shape[-1] ** -0.25)
    exponent = x @ w.T.astype(common.precision) - np.square(x).sum(-1, keepdims=True) / 2
    return np.exp(exponent) / common.precision(np.sqrt(len(w)))


def kept(q, k, v, causal=True, offset=None, **params):
    return visible(q, k, causal, offset)


def attend(q, k, v, causal=True, offset=None, window=256, features=0, seed=0):
    i, j = positions(q, k, offset)
    near = (j >= i - window // 2) & (j < i + (window + 1) // 2)
    seen, w = visible(q, k, causal, offset), directions(seed, features, q.shape[3])
    low_rank = phi(q, w) @ phi(repeat_heads(q, k), w).swapaxes(2, 3)
    with np.errstate(divide="ignore"):
        exact = common.logits(q, k).astype(common.precision)
        logits = np.where(seen, np.where(near, exact, np.log(low_rank)), -np.inf)
    top = logits.max(-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    p = np.exp(logits - top)
    total = p.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + top)[..., 0]
    v = repeat_heads(q, v).astype(common.precision)
    return p / np.where(total == 0, 1, total) @ v, lse
