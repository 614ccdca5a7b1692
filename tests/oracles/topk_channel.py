"""DRSformer (arXiv 2303.11950): attention over the best keys at four shares, mixed."""
import numpy as np
from common import attention, logits, rows_of, top, visible

small = {"k1": 0.05, "k2": 0.1, "k3": 0.2, "k4": 0.25, "w2": -0.3}


def branch(q, k, share, causal):
    s = np.where(visible(q, k, causal), logits(q, k), -np.inf)
    return rows_of(s, lambda b, h, r, row: top(row, int(share * k.shape[2])))


def kept(q, k, v, k1=1 / 2, k2=2 / 3, k3=3 / 4, k4=4 / 5, causal=True, offset=None, **weights):
    return branch(q, k, max(k1, k2, k3, k4), causal)


def attend(q, k, v, causal=True, offset=None, **p):
    shares = [p.get(f"k{n}", s) for n, s in zip((1, 2, 3, 4), (1 / 2, 2 / 3, 3 / 4, 4 / 5))]
    parts = [attention(q, k, v, branch(q, k, share, causal)) for share in shares]
    out = sum(np.asarray(p.get(f"w{n + 1}", 0.2), o.dtype) * o for n, (o, _) in enumerate(parts))
    return out, np.logaddexp.reduce([lse for _, lse in parts])
