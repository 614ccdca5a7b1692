"""MInference 1.0 (arXiv 2407.02490), A-shape: the first tokens and a causal window."""
from common import positions, visible

small = {"init": 5, "local": 37}  # parameters that leave something out on short inputs


def kept(q, k, v, init=128, local=3968, causal=True, offset=None):
    i, j = positions(q, k, offset)
    return visible(q, k, causal, offset) & ((j < init) | (i - j < local))
