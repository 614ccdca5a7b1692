"""DHSA (arXiv 2510.24606): length-normalised chunks; each query spends a budget of keys on them."""
import numpy as np
from common import repeat_heads, visible

small = {"chunk": 32, "top_k": 70, "local": 9, "global": 5}
planted = {"top_k": 180}
rows_compete = True  # a chunk of queries that the strip cuts has another sum


def example(q, k, causal=True, offset=None):
    n = k.shape[2]
    return {"starts": np.unique([0, n // 4, n // 3, n // 2, 3 * n // 4]).astype(np.int32)}


def vectors(x, cuts):
    return np.stack([np.float64(x[:, :, a:b]).sum(2) / np.sqrt(b - a) for a, b in cuts], 2)


def kept(q, k, v, starts=None, chunk=64, top_k=1024, local=0, queries="chunks", heads="each",
         causal=True, offset=None, **params):
    n, m = q.shape[2], k.shape[2]
    first, start = params.get("global", 0), m - n
    begin = np.unique([0, *(starts if starts is not None else range(0, m, chunk))])
    pieces = list(zip(begin, [*begin[1:], m]))
    rows = [(max(a - start, 0), b - start) for a, b in pieces if b > start]
    if queries == "blocks":
        rows = [(i, min(i + chunk, n)) for i in range(0, n, chunk)]
    keys = repeat_heads(q, k)
    if heads == "shared":
        q, keys = (np.broadcast_to(np.float64(x).mean(1, keepdims=True), x.shape)
                   for x in (q, keys))
    s = np.einsum("bhid,bhjd->bhij", vectors(q, rows), vectors(keys, pieces))
    out, allowed = np.zeros(q.shape[:3] + (m,), bool), visible(q, k, causal)
    for b, h in np.ndindex(q.shape[:2]):
        for n_row, (i0, i1) in enumerate(rows):
            order = np.argsort(-s[b, h, n_row], kind="stable")
            walk = np.concatenate([np.arange(*pieces[c]) for c in order])
            for i in range(i0, i1):
                seen = int(allowed[b, h, i].sum())
                forced = [j for j in range(seen) if j < first or j >= seen - local]
                free = [j for j in walk[walk < seen] if first <= j < seen - local]
                out[b, h, i, forced + free[: max(0, top_k - len(forced))]] = True
    return out & allowed
