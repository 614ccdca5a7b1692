"""Re-ttention (arXiv 2505.22918): a window times the share of the denominator it had."""
import numpy as np
from common import attention, exact, positions, visible

small = {"keep": 0.2, "frame": 60, "text": 30}
blind = True  # a static window
rows_compete = False


def example(q, k, causal=True, offset=None):
    shape = (1, q.shape[1], q.shape[2], 1)
    return {"rho": np.random.default_rng(4).random(shape).astype(np.float32)}


def kept(q, k, v, keep=0.1, frame=0, text=0, rho=None, causal=True, offset=None):
    i, j = positions(q, k, offset)
    first = k.shape[2] - text
    frame = frame or max(1, first)
    near = abs(i % frame - j % frame) <= int(keep * frame) // 2
    return visible(q, k, causal, offset) & ((near & (j < first)) | (j >= first) | (i >= first))


def attend(q, k, v, causal=True, offset=None, rho=None, **params):
    mask = kept(q, k, v, causal=causal, **params)
    if rho is None:
        p = exact(q, k, causal)
        rho = (p * mask).sum(-1, keepdims=True) / p.sum(-1, keepdims=True)
    out, lse = attention(q, k, v, mask)
    return out * rho, lse
