"""ChunkLLM (arXiv 2510.02361): chunks by adapted last keys, chosen at boundaries, first and own."""
import numpy as np
from common import positions, top, visible

small = {"topk": 2}
blind = True  # random weights know nothing
by_group = True
rows_compete = True  # a strip may not hold the boundary that chose


def example(q, k, causal=True, offset=None):
    n, rng = k.shape[2], np.random.default_rng(8)
    cuts = np.unique([0, n // 7, n // 5, n // 3, n // 2, 2 * n // 3, 4 * n // 5])
    return {"starts": cuts.astype(np.int32),
            "q_adapter": rng.normal(0, 1, (1, 1, q.shape[1] * q.shape[3], 9)).astype(np.float32),
            "k_adapter": rng.normal(0, 1, (1, 1, k.shape[1] * k.shape[3], 9)).astype(np.float32)}


def twin(q, k, causal=True, offset=None):
    return {**example(q, k), "topk": 10**9}


def flat(x, w):  # all heads of a token side by side
    x = np.float64(x).transpose(0, 2, 1, 3)
    return x.reshape(*x.shape[:2], -1) @ np.float64(w)[0, 0]


def kept(q, k, v, starts, q_adapter, k_adapter, topk=16, refresh="boundary", causal=True):
    n, m = q.shape[2], k.shape[2]
    begin = np.unique([0, *starts])
    end, chunk = np.append(begin[1:], m), np.searchsorted(begin, np.arange(m), side="right") - 1
    queries, keys = flat(q, q_adapter), flat(k, k_adapter)[:, end - 1]
    out = np.zeros(q.shape[:1] + (1, n, m), bool)
    for b, i in np.ndindex(q.shape[0], n):
        own = chunk[i + m - n]
        asks = i if refresh == "token" else min(max(begin[own] - 1 - (m - n), 0), n - 1)
        chosen = np.isin(np.arange(len(begin)), (0, own))
        chosen[:own] |= top(keys[b, :own] @ queries[b, asks], topk)
        out[b, 0, i] = chosen[chunk]
    return out & visible(q, k, True)
