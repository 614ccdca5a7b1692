"""SLA (arXiv 2509.24006), section 4: critical blocks exactly, marginal ones linearly."""
import common
import numpy as np
from common import attention, pooled_logits, repeat_heads, rows_of, softmax, tokens_of, top, visible

small = {"critical": 0.3, "negligible": 0.3, "block": 16}


def example(q, k, causal=True, offset=None):
    g, d = np.random.default_rng(5), 40 if q.shape[3] == 24 else q.shape[3]  # dv
    return {"projection": g.normal(0, d**-0.5, (1, 1, d, d)).astype(np.float32),
            "bias": g.normal(0, 0.3, (1, 1, 1, d)).astype(np.float32)}


def twin(q, k, causal):
    return {**example(q, k), "critical": 1.0}


def phi(x, kind):
    x = np.asarray(x, common.precision)
    elu = np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))
    return softmax(x) if kind == "softmax" else np.maximum(x, 0) if kind == "relu" else elu


def blocks(q, k, causal, offset, critical=0.05, negligible=0.1, linear="marginal", block=64, **_):
    s = pooled_logits(q, k, block, block, causal, offset)
    n = s.shape[3]
    best = rows_of(s, lambda b, h, r, row: top(row, max(1, int(critical * n))))
    middle = rows_of(s, lambda b, h, r, row: top(row, max(1, n - int(negligible * n))))
    rest = {"marginal": middle & ~best, "rest": ~best, "all": best | True}[linear]
    return [tokens_of(x, block, block, q, k) & visible(q, k, causal, offset) for x in (best, rest)]


def kept(q, k, v, causal=True, offset=None, **params):
    exact, linear = blocks(q, k, causal, offset, **params)
    return exact | linear


def attend(q, k, v, projection, bias, causal=True, offset=None, features="softmax", **params):
    exact, linear = blocks(q, k, causal, offset, **params)
    out, lse = attention(q, k, v, exact)
    w = phi(q, features) @ phi(repeat_heads(q, k), features).swapaxes(2, 3) * linear
    total = w.sum(-1, keepdims=True)
    low = w / np.where(total > 0, total, 1) @ repeat_heads(q, v).astype(w.dtype)
    weight, shift = (np.asarray(x, w.dtype)[0, 0] for x in (projection, bias))
    low = np.where(total > 0, low @ weight.T + shift, 0)
    with np.errstate(divide="ignore"):
        return out + low, np.logaddexp(lse, np.log(total[..., 0])).astype(lse.dtype)
