"""Press et al. (arXiv 2108.12409): logit - slope * distance; slopes of section 3."""
import math

import numpy as np
from common import attention, positions, visible


def example(q, k, causal=True, offset=None):
    return {"slopes": np.linspace(0.5, 0.01, q.shape[1]).astype(np.float32)}


def series(heads, max_bias):
    return [2 ** (-max_bias * (h + 1) / heads) for h in range(heads)]


def slopes_of(heads, max_bias, rule):
    p = 2 ** int(math.log2(heads))
    if p == heads or rule == "geometric":
        return series(heads, max_bias)
    return series(p, max_bias) + series(2 * p, max_bias)[0::2][: heads - p]


def kept(q, k, v, causal=True, offset=None, **params):
    return visible(q, k, causal, offset)


def attend(q, k, v, strength=1.0, max_bias=8.0, rule="nearest_power", slopes=None, causal=True,
           offset=None):
    slopes = slopes_of(q.shape[1], max_bias, rule) if slopes is None else slopes
    i, j = positions(q, k, offset)
    bias = -strength * np.reshape(np.float64(slopes), (1, -1, 1, 1)) * np.abs(i - j)
    return attention(q, k, v, visible(q, k, causal, offset), bias=bias)
