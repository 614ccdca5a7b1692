"""Reformer (arXiv 2001.04451), section 2 and appendix A: buckets, chunks, rounds counted once."""
import numpy as np
from common import normals, positions, visible

small = {"n_hashes": 3, "chunk": 16}


def example(q, k, causal=True, offset=None):
    r = np.random.default_rng(2).normal(0, 1, (1, 3, 5, q.shape[3]))
    return {"rotations": r.astype(np.float32), "n_buckets": 10}


def buckets(x, count, round, seed, given):
    if count == 1:
        return np.zeros(len(x), int)
    r = normals(seed, round, (count + 1) // 2, x.shape[1]) if given is None else given[0, round]
    r = r.astype(np.float32).T
    return np.concatenate([x @ r, -(x @ r)], 1).argmax(1)


def kept(q, k, v, n_hashes=8, chunk=64, n_buckets=0, self="alone", seed=0, rotations=None,
         causal=True, offset=None):
    m = k.shape[2]
    seen = visible(q, k, causal, offset)
    out = np.zeros(seen.shape, bool)
    count = n_buckets or 2 * -(-m // chunk)
    i, j = positions(q, k, offset)
    for b, h in np.ndindex(q.shape[:2]):
        query, keys = np.float64(q[b, h]), np.float64(k[b, h * k.shape[1] // q.shape[1]])
        for r in range(n_hashes):
            hq, hk = (buckets(x, count, r, seed, rotations) for x in (query, keys))
            order = np.lexsort((np.arange(m), hk))
            place = np.empty(m, int)
            place[order] = np.arange(m)
            # Where the pair (bucket, position) of a query stands among those of the keys.
            before = (hk[None] < hq[:, None]) | ((hk[None] == hq[:, None]) & (j < i))
            own = np.minimum(before.sum(1), m - 1)[:, None] // chunk
            near = (place // chunk <= own) & (place // chunk >= own - 1)
            out[b, h] |= near & (hq[:, None] == hk[None])
    out &= seen
    if self == "alone":
        others = (out & (i != j)).any(-1, keepdims=True)
        out = np.where(i == j, ~others & (out | ~out.any(-1, keepdims=True)), out)
    return out & seen
