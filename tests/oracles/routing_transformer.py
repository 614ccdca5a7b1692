"""Routing Transformer (arXiv 2003.05997), algorithm 1; a query reads the union of its clusters."""
import numpy as np
from common import repeat_heads, visible
from svg2 import kmeans

small = {"clusters": 5, "iterations": 3}
rows_compete = True  # a centroid takes a share of the queries of one call


def example(q, k, causal=True, offset=None):
    shape = (1, q.shape[1], 4, q.shape[3])
    return {"centroids": np.random.default_rng(3).normal(0, 1, shape).astype(np.float32)}


def layer_norm(x):
    x = np.float64(x) - np.float64(x).mean(-1, keepdims=True)
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6)


def members(x, centroids, window):
    window = window or -(-len(x) // len(centroids))
    best = np.argsort(-(centroids @ x.T), 1, kind="stable")[:, :window]
    return np.array([np.isin(np.arange(len(x)), row) for row in best])


def kept(q, k, v, clusters=0, window=0, centroids=None, iterations=10, seed=0, causal=True,
         offset=None):
    out = visible(q, k, causal, offset).copy()
    for b, h in np.ndindex(q.shape[:2]):
        query, keys = layer_norm(q[b, h]), layer_norm(repeat_heads(q, k)[b, h])
        if centroids is None:
            mu = kmeans(keys, clusters or int(np.sqrt(len(keys)) + 0.5), iterations, seed)[1]
        else:
            mu = np.float64(centroids[0, h % centroids.shape[1]])
        mine, theirs = members(query, mu, window), members(keys, mu, window)
        out[b, h] &= (mine.T.astype(int) @ theirs) > 0
    return out
