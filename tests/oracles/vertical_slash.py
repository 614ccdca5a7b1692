"""MInference 1.0 (arXiv 2407.02490), algorithm 2, with the tokens its index and kernel read."""
import numpy as np
from common import positions, repeat_heads, visible

small = {"vertical_size": 30, "slash_size": 104}


def best(score, always, n):  # the first `always` come first; ties to the lower index
    score = np.where(np.arange(len(score)) < always, np.inf, score)
    return np.argsort(-score, kind="stable")[: min(n, len(score))]


def probe(q, k, last, offset):
    i, j = positions(q[:, :, -last:], k, offset)
    s = np.einsum("bhid,bhjd->bhij", np.float64(q[:, :, -last:]), repeat_heads(q, k))
    s = np.where(j <= i, s * q.shape[-1] ** -0.5, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True), (i - j)


def row_keys(columns, slashes, end):  # keys of the block of rows [end - 64, end)
    stops = sorted(max(end - o, 64) for o in slashes if o < end)
    ranges = [[stops[0] - 64, stops[0]]]
    for stop in stops[1:]:
        if stop > ranges[-1][1] + 64:
            ranges.append([stop - 64, stop])
        elif stop > ranges[-1][1]:
            ranges[-1][1] += 64
    below = {c for c in columns if c < ranges[-1][1]}  # columns past the last range are dropped
    return sorted(below.union(*(range(a, b) for a, b in ranges)))


def kept(q, k, v, vertical_size=1000, slash_size=6096, last_q=64, causal=True, offset=None):
    n, m = q.shape[2], k.shape[2]
    start = m - n if offset is None else offset
    p, distance = probe(q, k, last_q, start + max(n - last_q, 0))
    out = np.zeros(q.shape[:2] + (n, m + 192), bool)
    for b, h in np.ndindex(q.shape[:2]):
        diagonals = np.bincount(distance[distance >= 0], p[b, h][distance >= 0], m)
        v_best = best(p[b, h].sum(0), 30, max(vertical_size, 30))
        s_best = best(diagonals, 100, max(slash_size, 50))
        for r in range(0, n, 64):
            out[b, h, r : r + 64, row_keys(v_best, s_best, start + r + 64)] = True
    return out[..., :m] & visible(q, k, causal, start)
