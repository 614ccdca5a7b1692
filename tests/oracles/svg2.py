"""Sparse VideoGen2 (arXiv 2505.18875): k-means of queries and keys, coverage over cluster pairs."""
import numpy as np
from common import bits, softmax, visible

small = {"num_q_centroids": 6, "num_k_centroids": 12, "top_p_kmeans": 0.6, "kmeans_iter": 4}
rows_compete = True  # queries of one call are clustered together


def example(q, k, causal=True, offset=None):
    g, shapes = np.random.default_rng(3), {"q_centroids": (1, 1, 5), "k_centroids": (1, 1, 9)}
    return {n: np.float32(g.normal(0, 1.5, (*s, q.shape[3]))) for n, s in shapes.items()}


def kmeans(x, count, iterations, seed, given=None):
    first = np.argsort([bits(seed, 0, 0, t) for t in range(len(x))], kind="stable")[:count]
    centroids, label, before = x[first] if given is None else np.float64(given), 0, -1
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
         kmeans_iter=50, seed=0, q_centroids=None, k_centroids=None, causal=True, offset=None):
    out = np.zeros(q.shape[:3] + (k.shape[2],), bool)
    for b, h in np.ndindex(q.shape[:2]):
        own = h * k.shape[1] // q.shape[1]
        mine, theirs = (None if x is None else x[0, at % x.shape[1]]
                        for x, at in ((q_centroids, h), (k_centroids, own)))
        q_label, q_mean = kmeans(np.float64(q[b, h]), num_q_centroids, kmeans_iter, seed, mine)
        k_label, k_mean = kmeans(np.float64(k[b, own]), num_k_centroids, kmeans_iter, seed, theirs)
        size = np.bincount(k_label, minlength=len(k_mean))
        s = q_mean @ k_mean.T * q.shape[-1] ** -0.5
        p = softmax(np.where(size > 0, s + np.log(np.maximum(size, 1)), -np.inf))
        best, sorted_p = np.argsort(-p, 1, kind="stable"), -np.sort(-p, 1)
        before = sorted_p.cumsum(1) - sorted_p
        least = max(1, int(min_kc_ratio * len(k_mean)))
        take = (before < top_p_kmeans) | (np.arange(len(k_mean)) < least)
        keep = np.zeros_like(take)
        np.put_along_axis(keep, best, take, 1)
        out[b, h] = keep[q_label][:, k_label]
    return out & visible(q, k, causal, offset)
