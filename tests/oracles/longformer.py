"""Longformer (arXiv 2004.05150), section 3.1: a window; global tokens see and are seen."""
import numpy as np
from common import positions, visible

small = {"window": 21, "right": 6, "global": 3}


def example(q, k, causal=True, offset=None):
    nk = k.shape[2]
    return {"tokens": np.array([min(2, nk - 1), nk // 3, nk - 1], np.int32), "dilation": 4}


def kept(q, k, v, window=256, right=-1, dilation=1, tokens=(), causal=True, offset=None, **params):
    i, j = positions(q, k, offset)
    chosen = set(range(params.get("global", 1))) | set(np.ravel(tokens).tolist())
    is_global = np.isin(np.arange(max(i.max(), j.max()) + 1), list(chosen))
    steps, rest = np.divmod(j - i, dilation)
    near = (rest == 0) & (-steps <= window) & (steps <= (window if right < 0 else right))
    allowed = near | is_global[j] | ((i >= 0) & is_global[np.maximum(i, 0)])
    return visible(q, k, causal, offset) & allowed
