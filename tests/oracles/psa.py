"""Pyramid Sparse Attention (arXiv 2512.04025): levels by cumulative importance."""
import numpy as np
from common import attention_of_levels, covering, rows_of, sampled_scores, tiles_where, top, visible

small = dict(block_q=32, block_k=16, sampled=2, tau1=0.3, tau2=0.5, tau4=0.7, text=10)
planted = {"sampled": 1, "tau1": 0.8, "tau2": 0.85, "tau4": 0.9, "tau8": 0.9, "cut": "code",
           "text": 0}


def example(q, k, causal=True, offset=None):
    return {"q_offsets": np.int32([[[[3, 0, 15]]]]), "k_offsets": np.int32([[[[7, 2, 11, 5]]]])}


def levels(q, k, causal, tau1=0.7, tau2=0.8, tau4=0.9, tau8=0.9, block_q=128, block_k=64,
           sampled=4, importance="paper", cut="paper", seed=0, text=0, **offsets):
    each, m = max(1, block_k // sampled), k.shape[2]
    s = sampled_scores(q, k, block_q, block_k, min(each, block_q), each, seed,
                       importance == "paper", causal, **offsets)
    code, least = cut == "code", int(0.06 * s.shape[3]) + 1
    near = tiles_where(lambda h, own, c: (c == own and causal) or (text and c * block_k + block_k
                       > m - text), 1, block_q, block_k, q, k)
    taken, out = np.broadcast_to(near, s.shape).copy(), {}
    for w, tau in ((1, tau1), (2, tau2), (4, tau4), (8, tau8)):
        now = rows_of(s, lambda b, h, r, row: top(row, int(tau * len(row))) if cut == "ratio"
                      else covering(row, tau, code, least * code * (w == 1)))
        out[w], taken = taken | now if w == 1 else now & ~taken, taken | now
    return out


def expand(tiles, bq, bk, q, columns):
    return np.repeat(np.repeat(tiles, bq, 2), bk, 3)[:, :, : q.shape[2], :columns]


def kept(q, k, v, causal=True, offset=None, block_q=128, block_k=64, **params):
    found = levels(q, k, causal, block_q=block_q, block_k=block_k, **params)
    out, m = np.zeros(q.shape[:3] + (k.shape[2],), bool), k.shape[2]
    i = np.arange(q.shape[2])[:, None] + m - q.shape[2]
    for w, tiles in found.items():  # a mean is read once all its tokens are visible
        ends = np.minimum(np.arange(m) // w * w + w, m) - 1
        out |= expand(tiles, block_q, block_k, q, m) & ((ends <= i) | (not causal))
    return out


def attend(q, k, v, causal=True, offset=None, block_q=128, block_k=64, **params):
    found = levels(q, k, causal, block_q=block_q, block_k=block_k, **params)
    masks = [(w, expand(t, block_q, block_k // w, q, -(-k.shape[2] // w)))
             for w, t in found.items()]
    return attention_of_levels(q, k, v, masks, causal)
