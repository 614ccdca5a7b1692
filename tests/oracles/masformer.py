"""MASFormer (arXiv 2310.12442): one layer, full or with short spans."""
from common import positions, visible

small = {"block": 44}


def kept(q, k, v, block=1024, span="block", full=False, causal=True, offset=None):
    i, j = positions(q, k, offset)
    near = i // block == j // block if span == "block" else abs(i - j) <= block
    return visible(q, k, causal, offset) & (near | full)
