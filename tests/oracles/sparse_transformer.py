"""Sparse Transformer (arXiv 1904.10509), section 4.2: the two sets of strided and of fixed."""
import numpy as np
from common import positions, visible

small = {"stride": 24, "c": 3}


def kept(q, k, v, pattern="strided", stride=128, c=32, heads="merged", causal=True, offset=None):
    i, j = positions(q, k, offset)
    if pattern == "strided":
        local, far = abs(i - j) <= stride, (i - j) % stride == 0
    else:
        local, far = i // stride == j // stride, (j % stride >= stride - c) & (i == i)
    if heads == "merged":
        return visible(q, k, causal, offset) & (local | far)
    even = (np.arange(q.shape[1]) % 2 == 0)[:, None, None]
    return visible(q, k, causal, offset) & np.where(even, local, far)
