"""Sparse Transformer (arXiv 1904.10509), section 4.2: the two sets of strided and of fixed."""
import numpy as np
from common import positions, visible

small = {"pattern": "fixed", "stride": 24, "c": 3}


def example(q, k, causal=True, offset=None):
    return {"pattern": "strided", "heads": "far"}


def kept(q, k, v, pattern="strided", stride=128, c=32, heads="merged", causal=True, offset=None):
    (i, j), h = positions(q, k, offset), np.arange(q.shape[1])[:, None, None]
    if pattern == "strided":
        local, far = abs(i - j) <= stride, (i - j) % stride == 0
    else:
        local, far = i // stride == j // stride, (j % stride >= stride - c) & (i == i)
    if heads == "own" and pattern == "fixed":
        first = stride - (h % max(1, stride // max(1, c)) + 1) * c
        far = (j % stride >= first) & (j % stride < first + c)
    both = {"far": far, "alternate": np.where(h % 2 == 0, local, far)}.get(heads, local | far)
    return visible(q, k, causal, offset) & both
