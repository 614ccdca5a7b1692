"""Sparse Sinkhorn attention (arXiv 2002.11296): own block and the best blocks of the sorting."""
import numpy as np
from common import pooled_logits, positions, tokens_of, visible

small = {"block": 16}
rows_compete = True  # columns of the sorting are normalised over the rows of one call


def normalise(r, axis):
    with np.errstate(invalid="ignore", divide="ignore"):
        top = r.max(axis, keepdims=True)
        lse = np.log(np.exp(r - top).sum(axis, keepdims=True)) + top
    return np.where(np.isfinite(r), r - np.where(np.isfinite(lse), lse, 0), -np.inf)


def kept(q, k, v, block=64, n_top=1, iterations=7, temperature=0.75, causal=True, offset=None):
    i, _ = positions(q, k, offset)
    cols = np.arange(-(-k.shape[2] // block))
    own = np.array([np.isin(cols, i[r : r + block, 0] // block)
                    for r in range(0, q.shape[2], block)])[None, None]
    r = pooled_logits(q, k, block, block, causal, offset)
    r = np.where(np.isfinite(r), np.log(np.maximum(r, 0) + 1e-6) / temperature, -np.inf)
    if causal:
        r = np.where(own, -np.inf, r)
    for _ in range(iterations):
        r = normalise(normalise(r, -1), -2)
    best = np.argsort(-r, -1, kind="stable")[..., : int(n_top)]
    sort = np.zeros(r.shape, bool)
    np.put_along_axis(sort, best, True, -1)
    return tokens_of((sort & np.isfinite(r)) | own, block, block, q, k) & visible(q, k, causal,
                                                                                  offset)
