"""MInference 1.0 (arXiv 2407.02490), A-shape: the first tokens and a causal window."""
from common import positions, visible

small = {"n_init": 5, "n_local": 37, "n_last": 19}  # leave something out of short inputs


def kept(q, k, v, n_init=128, n_local=3968, n_last=0, causal=True, offset=None):
    i, j = positions(q, k, offset)
    return visible(q, k, causal, offset) & (
        (j < n_init) | (i - j < n_local) | (i >= k.shape[2] - n_last))
