"""MoA (arXiv 2406.14909): a window of alpha + beta n a head; rules as its record states them."""
import math

import numpy as np
from common import positions, spread, tiles_where, visible

small = {"alpha": 20, "beta": 0.1, "sink": 5, "block": 16, "max_new_token": 90}


def example(q, k, causal=True, offset=None):
    h = q.shape[1]
    return {"alphas": np.linspace(-8, 70, h).astype(np.float32),
            "betas": np.linspace(0.25, 0.5, h).astype(np.float32)}


def kept(q, k, v, alpha=0.0, beta=0.5, alphas=None, betas=None, sink=64, block=64, rule="profile",
         max_new_token=0, causal=True, offset=None):
    heads, n = q.shape[1], k.shape[2]
    alphas = [alpha] * heads if alphas is None else [float(a) for a in alphas]
    betas = [float(np.float32(beta))] * heads if betas is None else [float(b) for b in betas]
    if rule == "profile":
        band = [max(1, int(a // block + b * -(-n // block))) for a, b in zip(alphas, betas)]
        near = tiles_where(lambda h, own, c: abs(own - c) < band[h] or c * block < sink, heads,
                           block, block, q, k, offset)
        return spread(near, block, block, q, k) & visible(q, k, causal, offset)
    n += max_new_token
    span = [math.ceil(max(min(int(a + b * n), n), 128) / block) * block
            for a, b in zip(alphas, betas)]
    i, j = positions(q, k, offset)
    window = np.array(span)[:, None, None] - sink
    return visible(q, k, causal, offset) & ((j < sink) | (abs(i - j) < window))
