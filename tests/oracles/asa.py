"""Video-BLADE (arXiv 2508.10774): best blocks of a sampled map, and means of everything."""
import numpy as np
from common import (attention_of_levels, covering, rows_of, sampled_scores, tokens_of, visible)

small = {"block": 32, "samples": 5, "gap": 7, "most": 0.4, "energy": 0.7}
planted = {"samples": 32, "most": 0.2, "energy": 0.95, "gap": 0}


def fine(q, k, causal, energy=0.95, least=0.05, most=0.17, block=128, samples=32,
         importance="paper", cut="paper", seed=0):
    s = sampled_scores(q, k, block, block, samples, samples, seed, importance == "paper", causal)
    low, high = (max(1, int(x * s.shape[3])) for x in (least, most))
    keep = rows_of(s, lambda b, h, r, row: covering(row, energy, cut == "paper", low, high))
    return tokens_of(keep, block, block, q, k)


def means(q, k, gap):
    return np.ones(q.shape[:3] + (-(-k.shape[2] // gap),), bool)


def kept(q, k, v, causal=True, offset=None, gap=30, **params):
    out = fine(q, k, causal, **params) & visible(q, k, causal)
    if gap:
        m = k.shape[2]
        ends = np.minimum(np.arange(m) // gap * gap + gap, m) - 1
        out = out | (ends <= np.arange(q.shape[2])[:, None] + m - q.shape[2]) | (not causal)
    return out


def attend(q, k, v, causal=True, offset=None, gap=30, **params):
    levels = [(1, fine(q, k, causal, **params))] + ([(gap, means(q, k, gap))] if gap else [])
    return attention_of_levels(q, k, v, levels, causal)
