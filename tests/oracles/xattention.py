"""XAttention (arXiv 2503.16428), algorithm 1; `forced` as docs/methods/xattention states it."""
import numpy as np
from common import attention, repeat_heads, visible

small = {"block": 32, "stride": 8, "threshold": 0.7}


def scores(q, k, block, stride, causal, start):
    def groups(x):  # [.., tokens, d] -> [.., groups, stride, d], zeros past the end
        pad = -x.shape[2] % stride
        x = np.pad(np.float64(x), ((0, 0), (0, 0), (0, pad), (0, 0)))
        return x.reshape(*x.shape[:2], -1, stride, x.shape[-1])

    n, m = q.shape[2], k.shape[2]
    a = np.einsum("bhitd,bhjtd->bhij", groups(q)[:, :, :, ::-1], groups(repeat_heads(q, k)))
    i, j = np.arange(a.shape[2])[:, None], np.arange(a.shape[3])[None]
    seen = (j * stride <= start + np.minimum((i + 1) * stride, n) - 1) if causal else j >= 0
    a = np.where(seen, a * q.shape[-1] ** -0.5 / stride, -np.inf)
    p = np.exp(a - a.max(-1, keepdims=True))
    p, per = p / p.sum(-1, keepdims=True), block // stride
    p = np.add.reduceat(p, np.arange(0, p.shape[2], per), 2)
    return np.add.reduceat(p, np.arange(0, p.shape[3], per), 3)


def row(s, forced, threshold, lag):  # lag 1: the sum is one item late, so one more is kept
    keep, goal = forced.copy(), threshold * s.sum()
    before = [s[forced].sum()] * (1 + lag)
    for c in sorted(np.flatnonzero(~forced), key=lambda c: (-s[c], c)):
        keep[c] |= before[-1 - lag] < goal
        before.append(before[-1] + s[c])
    return keep


def kept(q, k, v, threshold=0.9, block=128, stride=16, forced="paper", chunk=16384, causal=True,
         offset=None):
    start = k.shape[2] - q.shape[2] if offset is None else offset
    s = scores(q, k, block, stride, causal, start)
    first, last = start + block * np.arange(s.shape[2]), k.shape[2]
    keep, column = np.zeros(s.shape, bool), np.arange(s.shape[3])
    for b, h, r in np.ndindex(s.shape[:3]):
        end = min(first[r] + block, start + q.shape[2]) - 1
        own = (column >= first[r] // block) & (column <= end // block) & causal
        early = causal and forced == "code" and first[r] < chunk
        keep[b, h, r] = row(s[b, h, r], own | ((column == 0) & causal & (not early)), threshold, early)
        keep[b, h, r, 0] |= forced == "code"
    tokens = np.repeat(np.repeat(keep, block, 2), block, 3)[:, :, : q.shape[2], :last]
    return tokens & visible(q, k, causal, offset)


def attend(q, k, v, causal=True, offset=None, **params):
    return attention(q, k, v, kept(q, k, v, causal=causal, offset=offset, **params))
