"""Sparse VideoGen2 (arXiv 2505.18875): k-means of queries and keys, coverage over cluster pairs."""
import numpy as np
from common import bits, visible

small = {"num_q_centroids": 6, "num_k_centroids": 12, "top_p_kmeans": 0.6, "kmeans_iter": 4}
rows_compete = True  # queries of one call are clustered together


def kmeans(x, count, iterations, seed):
    first = np.argsort([bits(seed, 0, 0, t) for t in range(len(x))], kind="stable")[:count]
    centroids, label, before = x[first], 0, -1
    for _ in range(iterations):
        if np.array_equal(label, before):  # a fixed point
            break
        before = label
        far = np.square(centroids).sum(1) - 2 * x @ centroids.T  # less |x|^2
        label = np.where(np.isnan(far), np.inf, far).argmin(1)
        mine = label == np.arange(len(centroids))[:, None]
        size = mine.sum(1, keepdims=True)
        centroids = np.where(size > 0, mine @ x / np.maximum(size, 1), centroids)
    return label, centroids


def kept(q, k, v, top_p_kmeans=0.9, min_kc_ratio=0.1, num_q_centroids=300, num_k_centroids=1000,
         kmeans_iter=50, seed=0, causal=True, offset=None):
    out = np.zeros(q.shape[:3] + (k.shape[2],), bool)
    for b, h in np.ndindex(q.shape[:2]):
        q_label, q_mean = kmeans(np.float64(q[b, h]), num_q_centroids, kmeans_iter, seed)
        keys = np.float64(k[b, h * k.shape[1] // q.shape[1]])
        k_label, k_mean = kmeans(keys, num_k_centroids, kmeans_iter, seed)
        size = np.bincount(k_label, minlength=len(k_mean))
        s = q_mean @ k_mean.T * q.shape[-1] ** -0.5
        p = size * np.exp(s - s.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        best = np.argsort(-p, 1, kind="stable")
        before = np.take_along_axis(p, best, 1).cumsum(1) - np.take_along_axis(p, best, 1)
        take = (before < top_p_kmeans) | (np.arange(len(k_mean)) < int(min_kc_ratio * len(k_mean)))
        take[:, 0] = True
        keep = np.zeros_like(take)
        np.put_along_axis(keep, best, take, 1)
        out[b, h] = keep[q_label][:, k_label]
    return out & visible(q, k, causal, offset)
