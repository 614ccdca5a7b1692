"""MInference 1.0 (arXiv 2407.02490), A-shape: the first tokens and a causal window."""
from common import attention, positions, visible

small = {"init": 5, "local": 37}  # parameters that leave something out on short inputs


def kept(q, k, v, init=128, local=3968, causal=True, offset=None):
    i, j = positions(q, k, offset)
    return visible(q, k, causal, offset) & ((j < init) | (i - j < local))


def attend(q, k, v, causal=True, offset=None, **params):
    return attention(q, k, v, kept(q, k, v, causal=causal, offset=offset, **params))
