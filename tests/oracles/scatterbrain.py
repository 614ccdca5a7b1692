"""Scatterbrain (arXiv 2110.15343), section 4: window or hashed clusters exactly, else features."""
import functools

import common
import numpy as np
from common import clusters, normals, positions, repeat_heads, visible

small = {"window": 37, "features": 50, "seed": 3, "n_hashes": 2, "cluster": 24}
rows_compete = True  # a cluster takes a share of the queries of one call


@functools.cache
def drawn(seed, count, d):
    return normals(seed, 0, count, d).astype(np.float32)


def phi(x, w):  # E[phi(q).phi(k)] = exp(q.k / sqrt(d))
    x = np.asarray(x, common.precision) * common.precision(x.shape[-1] ** -0.25)
    exponent = x @ w.T.astype(common.precision) - np.square(x).sum(-1, keepdims=True) / 2
    return np.exp(exponent) / common.precision(np.sqrt(len(w)))


def example(q, k, causal=True, offset=None):
    g, d = np.random.default_rng(9), q.shape[3]
    return {"directions": np.float32(g.normal(0, 1, (1, 1, 30, d))),
            "hashes": np.float32(g.normal(0, 1, (1, 1, 2, d + 2))), "support": "hash"}


def kept(q, k, v, causal=True, offset=None, **params):
    return visible(q, k, causal, offset)


def attend(q, k, v, causal=True, offset=None, window=256, features=0, seed=0, support="window",
           n_hashes=4, cluster=64, directions=None, hashes=None):
    (i, j), d = positions(q, k, offset), q.shape[3]
    near = (j >= i - window // 2) & (j < i + (window + 1) // 2)
    if support == "hash":
        w = np.float64(normals(seed, 1, n_hashes, d + 2) if hashes is None else hashes[0, 0])
        near = np.array([[clusters(q[b, h], repeat_heads(q, k)[b, h], w, cluster)
                          for h in range(q.shape[1])] for b in range(q.shape[0])])
    w = drawn(seed, max(1, (features or int(d * np.log(d))) // 2), d)
    w = np.concatenate([w, -w] if directions is None else [directions[0, 0], -directions[0, 0]])
    low_rank = phi(q, w) @ phi(repeat_heads(q, k), w).swapaxes(2, 3)
    return common.mixed(q, k, v, visible(q, k, causal, offset), near, low_rank)
