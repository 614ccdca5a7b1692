"""BlockRank (arXiv 2510.05396): an instruction, documents that see it and themselves, a query."""
import numpy as np
from common import positions, visible

small = {"instruction": 7, "document": 29, "query": 11}


def example(q, k, causal=True, offset=None):
    n = k.shape[2]
    return {"starts": np.unique([n // 9, n // 3, n // 2, n - 1]).astype(np.int32)}


def kept(q, k, v, instruction=64, document=256, query=64, starts=None, causal=True, offset=None):
    i, j = positions(q, k, offset)
    n = k.shape[2]
    if starts is None:
        first = min(instruction, n)
        last = max(first, n - query)
        starts = [*range(first, last, document), last]
    part_i, part_j = (np.searchsorted(starts, x, side="right") for x in (i, j))
    allowed = (part_j == 0) | (part_i == part_j) | (part_i == len(starts))
    return visible(q, k, causal, offset) & allowed
