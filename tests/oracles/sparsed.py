"""SparseD (arXiv 2509.24014): best blocks by exact mean attention, generated part apart."""
import numpy as np
from common import exact, logits, rows_of, softmax, sums, tokens_of, top, visible

small = {"select": 0.2, "block": 32, "generated": 70}


def kept(q, k, v, select=0.3, block=128, generated=0, causal=True, offset=None):
    mass = sums(exact(q, k, causal), block, block)
    cols = mass.shape[3]
    keep = rows_of(mass, lambda b, h, r, row: top(row, int(cols * select) + 1))
    if generated:
        first = min(-(-max(k.shape[2] - generated, 0) // block), cols - 1)
        late = np.arange(k.shape[2]) >= first * block
        p = softmax(np.where(visible(q, k, causal) & late, logits(q, k), -np.inf))
        own = sums(p, block, block)[..., first:]
        count = int((cols - first) * select) + 1
        keep[..., first:] = rows_of(own, lambda b, h, r, row: top(row, count))
    return tokens_of(keep, block, block, q, k) & visible(q, k, causal)
