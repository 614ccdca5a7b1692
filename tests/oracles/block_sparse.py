"""MInference 1.0 (arXiv 2407.02490), block-sparse: best blocks by mean query and mean key."""
from common import pooled_logits, rows_of, tokens_of, top, visible

small = {"top_k": 3, "block": 32}
planted = {"top_k": 6}


def kept(q, k, v, top_k=100, block=64, causal=True, offset=None):
    s = pooled_logits(q, k, block, block, causal, offset)
    keep = rows_of(s, lambda b, h, r, row: top(row, top_k))
    return tokens_of(keep, block, block, q, k) & visible(q, k, causal, offset)
