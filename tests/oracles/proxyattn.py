"""ProxyAttn (arXiv 2509.24745); rounding, sampling and forced blocks as its record states."""
import numpy as np
from common import (exact, logits, pooled_logits, repeat_heads, rows_of, softmax, tiles_where,
                    tokens_of, top, visible)

small = {"gamma": 0.7, "groups": 1, "stride": 2, "block": 32}
planted = {"gamma": 0.9}


def proxy(q, k, groups, stride, block, causal):
    each, keys = q.shape[1] // groups, repeat_heads(q, k)
    q, k = (np.float64(x).reshape(x.shape[0], groups, each, *x.shape[2:]).mean(2)
            for x in (q, keys))
    start = k.shape[2] - q.shape[2]
    qs, ks = np.arange(0, q.shape[2], stride), np.arange(0, k.shape[2], stride)
    seen = (ks <= qs[:, None] + start) | (not causal)
    p = softmax(np.where(seen, logits(q[:, :, qs], k[:, :, ks]), -np.inf))
    p = np.maximum.reduceat(p, np.arange(0, len(qs), block // stride), 2)
    p = np.maximum.reduceat(p, np.arange(0, len(ks), block // stride), 3)
    return np.repeat(p, each, 1)


def kept(q, k, v, gamma=0.95, groups=1, stride=4, block=128, causal=True, offset=None):
    seen = np.isfinite(pooled_logits(q, k, block, block, causal))
    s = np.where(seen, proxy(q, k, groups, stride, block, causal), -np.inf)
    mass = exact(q, k, causal)[:, :, -block:].sum(2)
    mass = np.add.reduceat(mass, np.arange(0, k.shape[2], block), 2)
    running = np.cumsum(-np.sort(-mass, -1), -1)
    needed = np.minimum((running < gamma * running[..., -1:]).sum(-1) + 1, s.shape[3])
    cols = s.shape[3]
    keep = rows_of(s, lambda b, h, r, row: top(row, -(-needed[b, h] * seen[b, h, r].sum() // cols)))
    keep |= tiles_where(lambda h, own, c: c == own or c == 0, 1, block, block, q, k)
    return tokens_of(keep, block, block, q, k) & visible(q, k, causal)
