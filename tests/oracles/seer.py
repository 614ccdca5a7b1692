"""SeerAttention (arXiv 2410.13276): learned gate over pooled queries and keys before rotation."""
import math

import numpy as np
from common import (repeat_heads, rotated, rows_of, softmax, tiles_where, tokens_of, top,
                    visible)

small = {"block": 32, "threshold": 0.2, "dense_rows": 1, "rope": 10000.0}
blind = True  # random weights know nothing


def example(q, k, causal=True, offset=None):
    rng, h, d = np.random.default_rng(6), q.shape[1], q.shape[3]
    return {"q_gate": rng.normal(0, 0.4, (1, h, d, 20)).astype(np.float32),
            "k_gate": rng.normal(0, 0.3, (1, h, 3 * d, 20)).astype(np.float32)}


def twin(q, k, causal=True, offset=None):
    return {**example(q, k), "threshold": -1.0}


def pools(x, start, block, base, kinds, weights):
    x = rotated(np.float64(x), -(start + np.arange(x.shape[2])), base)
    blocks = [x[:, :, i : i + block] for i in range(0, x.shape[2], block)]
    pooled = np.stack([np.concatenate([f(c, 2) for f in kinds], -1) for c in blocks], 2)
    out = np.einsum("bhid,hdw->bhiw", pooled, np.float64(weights[0]))
    return rotated(out, start + block * np.arange(len(blocks)), base)


def kept(q, k, v, q_gate, k_gate, cut="threshold", threshold=2e-3, sparsity=0.8, block=64,
         dense_rows=2, rope=0.0, causal=True, offset=None):
    start = k.shape[2] - q.shape[2]
    queries = pools(q, start, block, rope, [np.mean], q_gate)
    keys = pools(repeat_heads(q, k), 0, block, rope, [np.max, np.min, np.mean], k_gate)
    seen = tiles_where(lambda h, own, c: c <= own, 1, block, block, q, k)
    s = queries @ np.swapaxes(keys, 2, 3) / math.sqrt(q_gate.shape[3])
    s = np.where(seen | (cut == "nz_ratio"), s, -np.inf)
    p, count = softmax(s), max(1, int((1 - math.sqrt(sparsity)) * s.shape[3]))
    keep = p > threshold if cut == "threshold" else rows_of(p, lambda b, h, r, x: top(x, count))
    late = -(-k.shape[2] // block) - dense_rows
    keep |= tiles_where(lambda h, own, c: own >= late, 1, block, block, q, k)
    return tokens_of(keep, block, block, q, k) & visible(q, k, True)
