"""AdaSpa (arXiv 2502.21079): heaviest blocks by exact mass, sparsity by head."""
import math

import numpy as np
from common import exact, rows_of, spread, sums, tiles_where, tokens_of, top, visible

small = {"sparsity": 0.6, "block": 32, "text": 40}
planted = {"text": 0, "sparsity": 0.85}
rows_compete = True


def kept(q, k, v, sparsity=0.8, block=64, text=0, adaptive=True, causal=True, offset=None):
    mass, n = sums(exact(q, k, causal), block, block), k.shape[2]
    cols, heads = mass.shape[3], q.shape[1]
    share = np.full(q.shape[:2], sparsity)
    keep = rows_of(mass, lambda b, h, r, row: top(row, math.ceil((1 - share[b, h]) * cols)))
    if adaptive:
        recall = (mass * keep).sum((2, 3)) / mass.sum((2, 3))
        for b in range(q.shape[0]):
            order = np.argsort(-recall[b], kind="stable")
            lend = min(int((recall[b] > 0.8).sum()), heads // 2)
            share[b, order[:lend]] = (1 + sparsity) / 2
            share[b, order[heads - lend :]] = max(0, (3 * sparsity - 1) / 2)
        keep = rows_of(mass, lambda b, h, r, row: top(row, math.ceil((1 - share[b, h]) * cols)))
    if text:  # with text=0 a ragged last block is like all others
        keep |= tiles_where(lambda h, own, c: max(own, c) * block + block > n - text, 1, block,
                            block, q, k)
    return tokens_of(keep, block, block, q, k) & visible(q, k, causal)
