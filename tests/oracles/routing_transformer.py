"""Routing Transformer (arXiv 2003.05997), algorithm 1; a query reads the union of its clusters."""
import numpy as np
from common import attention, repeat_heads, visible
from svg2 import kmeans

small = {"clusters": 5, "iterations": 3}
rows_compete = True  # a centroid takes a share of the queries of one call


def example(q, k, causal=True, offset=None):
    g = np.random.default_rng(3)
    return {"centroids": np.float32(g.normal(0, 1, (1, q.shape[1], 4, q.shape[3])))}


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def members(x, centroids, window):
    window = window or -(-len(x) // len(centroids))
    best = np.argsort(-(centroids @ x.T), 1, kind="stable")[:, :window]
    return np.array([np.isin(np.arange(len(x)), row) for row in best])


def each_cluster(q, k, clusters=0, window=0, centroids=None, iterations=10, seed=0):
    out = []  # [clusters,B,H,N,M]: pairs of its queries and its keys
    for b, h in np.ndindex(q.shape[:2]):
        query, keys = layer_norm(np.float64(q[b, h])), layer_norm(repeat_heads(q, k)[b, h])
        if centroids is None:
            mu = kmeans(keys, clusters or int(np.sqrt(len(keys)) + 0.5), iterations, seed)[1]
        else:
            mu = np.float64(centroids[0, h % centroids.shape[1]])
        pairs = zip(members(query, mu, window), members(keys, mu, window))
        out.append([mine[:, None] & theirs for mine, theirs in pairs])
    return np.stack(out, 1).reshape(-1, *q.shape[:3], k.shape[2])


def kept(q, k, v, causal=True, offset=None, combine="union", **params):
    return each_cluster(q, k, **params).any(0) & visible(q, k, causal, offset)


def attend(q, k, v, causal=True, offset=None, combine="union", **params):
    taken = each_cluster(q, k, **params)
    if combine == "union":
        return attention(q, k, v, taken.any(0) & visible(q, k, causal, offset))
    out, lse = zip(*(attention(q, k, v, c & visible(q, k, causal, offset)) for c in taken))
    count = taken.any(-1, keepdims=True).sum(0) + 0.01
    return sum(out) / np.asarray(count, out[0].dtype), np.logaddexp.reduce(lse)
