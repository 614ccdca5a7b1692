"""HyperAttention (arXiv 2310.05869), algorithms 1 to 3: sorted blocks plus a weighted sample."""
import common
import numpy as np
from common import normals, positions, repeat_heads, uniform

small = {"min_seq_len": 70, "block_size": 16, "sample_size": 12, "lsh_num_projs": 4}
rows_compete = True  # the queries of one call are sorted together


def example(q, k, causal=True, offset=None):
    g, least = np.random.default_rng(4), max(1, k.shape[2] // 8)
    return {"projections": g.normal(0, 1, (1, 1, 4, q.shape[3])).astype(np.float32),
            "samples": g.integers(0, least, (1, k.shape[1], 99, 12)).astype(np.int32)}


def rank(x, projections, seed, table, given):
    r = normals(seed, 0, projections, x.shape[1]) if given is None else given[0, 0]
    r = r.astype(np.float32).T
    bits = ((x @ r > 0) << np.arange(projections)).sum(1)
    gray = [n ^ n >> 1 for n in range(1 << projections)]
    return np.array(gray)[bits] if table == "code" else np.argsort(gray)[bits]


def quadrants(position, m, least, causal):  # level, queries, first key, past the last key
    if not causal:
        return [(0, np.arange(len(position)), 0, m)], m
    out, parts, size, level = [], [(0, m)], m, 0
    while size > least:
        size, halves = -(-size // 2), []
        for a, z in parts:
            halves += [(a, min(a + size, z)), (a + size, z)]
            rows = np.flatnonzero((position >= a + size) & ((position < z) | (z == m)))
            out.append((level, rows, a, min(a + size, z)))
        parts, level = [(a, z) for a, z in halves if a < z], level + 1
    return [x for x in out if len(x[1])], parts


def weights(q, k, block_size, sample_size, lsh_num_projs, min_seq_len, rank_by, seed, causal,
            offset, given=None, places=None):
    """[B,H,N,M]: how often each pair counts; 0 where it is not read."""
    i, j = positions(q, k, offset)
    m = k.shape[2]
    out = np.zeros(q.shape[:3] + (m,))
    if m <= min_seq_len:
        return out + (j <= i if causal else True)
    parts, leaves = quadrants(i[:, 0], m, min_seq_len, causal)
    for b, h in np.ndindex(q.shape[:2]):
        args = lsh_num_projs, seed, rank_by, given
        hq = rank(np.float64(q[b, h]), *args)
        hk = rank(repeat_heads(q, k)[b, h], *args)
        for number, (level, rows, a, z) in enumerate(parts):
            rows = rows[np.argsort(hq[rows], kind="stable")]
            keys = a + np.argsort(hk[a:z], kind="stable")
            size = z - a
            blocks = -(-size // block_size)
            draws = np.array([int(size * uniform(seed, 1 + level, a, n))
                              for n in range(sample_size)], int)
            if places is not None:
                draws = places[b % len(places), h * places.shape[1] // q.shape[1], number]
            times = np.bincount(draws, minlength=size) * size / max(sample_size, 1)
            row_block = np.arange(len(rows)) // -(-len(rows) // blocks)
            same = row_block[:, None] == np.arange(size)[None] // block_size
            out[b, h][np.ix_(rows, keys)] = np.where(same, 1, times)
        for a, z in leaves if causal else []:
            mine = np.clip(i, 0, m - 1)
            out[b, h] += (mine >= a) & (mine < z) & (j >= a) & (j < z) & (j <= i)
    return out


def defaults(block_size=256, sample_size=256, lsh_num_projs=7, min_seq_len=4096, rank="paper",
             seed=0, causal=True, offset=None, projections=None, samples=None):
    return (block_size, sample_size, lsh_num_projs, min_seq_len, rank, seed, causal, offset,
            projections, samples)


def kept(q, k, v, **params):
    return weights(q, k, *defaults(**params)) > 0


def attend(q, k, v, **params):
    w = weights(q, k, *defaults(**params))
    return common.attention(q, k, v, w > 0, bias=np.log(np.where(w > 0, w, 1)))
