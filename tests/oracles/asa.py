"""Video-BLADE (arXiv 2508.10774): best blocks of a sampled map, and means of everything."""
import numpy as np
from common import (attention_of_levels, covering, rows_of, sampled_scores, tiles_where, tokens_of,
                    visible)

small = {"block": 32, "samples": 5, "gap": 7, "most": 0.4, "energy": 0.7, "text": 11}
planted = {"samples": 32, "most": 0.2, "energy": 0.95, "gap": 0, "text": 0}


def example(q, k, causal=True, offset=None):
    return {"q_offsets": np.int32([[[[3, 0, 15]]]]), "k_offsets": np.int32([[[[7, 31, 11, 5]]]])}


def fine(q, k, causal, energy=0.95, least=0.05, most=0.17, block=128, samples=32,
         importance="paper", cut="paper", seed=0, text=0, **offsets):
    s = sampled_scores(q, k, block, block, min(samples, block), min(samples, block), seed,
                       importance == "paper", causal, **offsets)
    low, high = (max(1, int(x * s.shape[3])) for x in (least, most))
    keep = rows_of(s, lambda b, h, r, row: covering(row, energy, cut == "paper", low, high))
    keep |= tiles_where(lambda h, own, c: text and max(own, c) * block + block > k.shape[2] - text,
                        1, block, block, q, k)
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
