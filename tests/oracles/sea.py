"""SEA (arXiv 2310.01777), sections 3.2 and 3.3: columns of an estimated map, widened to keys."""
import numpy as np
from common import attention, positions, visible

small = {"top_k": 20}
by_group = True  # heads compete


def example(q, k, causal=True, offset=None):
    g = np.random.default_rng(q.shape[2] + k.shape[2])
    scale, mix = g.random((2, 1, q.shape[1], q.shape[2]))  # learned, in (0, 1)
    return {"map": g.random((1, q.shape[1], q.shape[2], 24)).astype(np.float32),
            "gates": np.stack([scale * mix, 1 - mix], -1).astype(np.float32)}


def chosen(q, key, map, k, causal, offset):
    out = np.zeros(q.shape[:3] + (key.shape[2],), bool)
    heads, columns = q.shape[1], map.shape[3]
    for row, position in enumerate(positions(q, key, offset)[0][:, 0]):
        n = position + 1 if causal else key.shape[2]
        flat = np.broadcast_to(map[:, :, row], (len(q), heads, columns)).reshape(len(q), -1)
        budget = min(max(1, int(np.rint(heads * k * columns / n))), heads * columns)
        keep = np.zeros_like(flat, bool)
        np.put_along_axis(keep, np.argsort(-flat, 1, kind="stable")[:, :budget], True, 1)
        column = np.floor((np.arange(n) + 0.5) / n * columns - 1e-4).astype(int)
        out[:, :, row, :n] = keep.reshape(len(q), heads, columns)[:, :, np.maximum(column, 0)]
    return out


def kept(q, k, v, map, gates, causal=True, offset=None, **params):
    return visible(q, k, causal, offset)  # the mean reads everything


def attend(q, k, v, map, gates, causal=True, offset=None, **params):
    mask = chosen(q, k, np.asarray(map), params.get("top_k", 64), causal, offset)
    sparse, sparse_lse = attention(q, k, v, mask)
    seen = visible(q, k, causal, offset)
    mean, mean_lse = attention(np.zeros_like(q), k, v, seen)
    return (gates[..., :1] * sparse + gates[..., 1:] * mean,
            np.logaddexp(sparse_lse, mean_lse).astype(sparse_lse.dtype))
