"""MoBA (arXiv 2502.13189): own chunk and the best of the others by q . mean key, topk in all."""
import numpy as np
from common import pooled_logits, positions, rows_of, tokens_of, top, visible

small = {"chunk": 24, "topk": 3}
planted = {"chunk": 32, "topk": 6}


def kept(q, k, v, chunk=512, topk=3, causal=True, offset=None):
    s = pooled_logits(q, k, 1, chunk, causal, offset)
    own = positions(q, k, offset)[0][:, 0] // chunk
    s[:, :, np.arange(q.shape[2]), own] = np.inf
    keep = rows_of(s, lambda b, h, r, row: top(row, topk))
    return tokens_of(keep, 1, chunk, q, k) & visible(q, k, causal, offset)
