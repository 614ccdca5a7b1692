"""XAttention (arXiv 2503.16428), algorithm 1; `forced` as its record states it."""
import numpy as np
from common import repeat_heads, tile_sums, tokens_of, visible

small = {"block": 32, "stride": 8, "threshold": 0.7}


def groups(x, stride):  # [.., tokens, d] -> [.., groups, stride, d], zeros past the end
    x = np.pad(np.float64(x), ((0, 0), (0, 0), (0, -x.shape[2] % stride), (0, 0)))
    return x.reshape(*x.shape[:2], -1, stride, x.shape[-1])


def scores(q, k, block, stride, causal, start):
    q_groups, k_groups = groups(q, stride)[:, :, :, ::-1], groups(repeat_heads(q, k), stride)
    a = np.einsum("bhitd,bhjtd->bhij", q_groups, k_groups)
    last = start + np.minimum(np.arange(1, a.shape[2] + 1) * stride, q.shape[2])[:, None] - 1
    seen = (np.arange(a.shape[3]) * stride <= last) | (not causal)
    a = np.where(seen, a * q.shape[-1] ** -0.5 / stride, -np.inf)
    p = np.exp(a - a.max(-1, keepdims=True))
    return tile_sums(p / p.sum(-1, keepdims=True), block // stride)


def row(s, forced, threshold, lag):  # lag 1: sums come one item late, so one more is kept
    keep, goal, before = forced.copy(), threshold * s.sum(), [0.0] * lag + [s[forced].sum()]
    for c in sorted(np.flatnonzero(~forced), key=lambda c: (-s[c], c)):
        keep[c] |= before[-1 - lag] < goal
        before.append(before[-1] + s[c])
    return keep


def kept(q, k, v, threshold=0.9, block=128, stride=16, forced="paper", chunk=16384, causal=True,
         offset=None):
    start = k.shape[2] - q.shape[2] if offset is None else offset
    s = scores(q, k, block, stride, causal, start)
    keep, column = s < 0, np.arange(s.shape[3])
    for b, h, r in np.ndindex(s.shape[:3]):
        begin, last = start + r * block, start + min((r + 1) * block, q.shape[2]) - 1
        early = causal and forced == "code" and begin < chunk
        own = (column >= begin // block) & (column <= last // block)
        must = (own | ((column == 0) & (not early))) & causal
        keep[b, h, r] = row(s[b, h, r], must, threshold, early)
        keep[b, h, r, 0] |= forced == "code"
    return tokens_of(keep, block, block, q, k) & visible(q, k, causal, offset)
