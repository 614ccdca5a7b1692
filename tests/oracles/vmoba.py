"""VMoBA (arXiv 2506.23858): own box, and others by spread gates until tau of their sum."""
import numpy as np
from common import logits, positions, visible

small = {"chunk_t": 24, "tau": 0.4, "topk": 2}
planted = {"chunk_t": 32, "cut": "topk", "topk": 6}
rows_compete, alone = True, 1  # scope=head; scope=all lets batch items compete


def boxes(n, frames, height, width, chunk_t, chunk_h, chunk_w):
    grid = (frames, height, width) if frames else (n, 1, 1)
    box = [c or g for c, g in zip((chunk_t, chunk_h, chunk_w), grid)]
    at = np.stack(np.unravel_index(np.arange(n), grid), 1) // box
    return np.unique(at, axis=0, return_inverse=True)[1].ravel()


def choose(g, own, cut, tau, topk, rows):  # one scope: flat gates and forced items
    finite = np.isfinite(g)
    low, high = g[finite].min(), g[finite].max()
    g = np.where(finite, (g - low) / (high - low) if high > low else 0.0, -np.inf)
    keep, order = own.copy(), [i for i in np.argsort(-g, kind="stable") if finite[i] and not own[i]]
    total, so_far, count = g[finite].sum(), g[own & finite].sum(), own.sum()
    for i in order:
        least = cut == "threshold" and count < rows + 1  # one more than the own ones
        if not (least or (so_far < tau * total if cut == "threshold" else count < topk * rows)):
            break
        keep[i], so_far, count = True, so_far + g[i], count + 1
    return keep


def kept(q, k, v, frames=0, height=1, width=1, chunk_t=512, chunk_h=0, chunk_w=0,
         cut="threshold", tau=0.25, topk=3, scope="query", causal=True, offset=None):
    n, box = q.shape[2], boxes(k.shape[2], frames, height, width, chunk_t, chunk_h, chunk_w)
    count = box.max() + 1
    mean = np.stack([np.float64(k)[:, :, box == c].mean(2) for c in range(count)], 2)
    gates = logits(q, mean)  # the scale goes out with the spread
    i, first = positions(q, k)[0], np.unique(box, return_index=True)[1]
    gates = np.where((first <= i) | (not causal), gates, -np.inf)
    own = np.broadcast_to(np.arange(count) == box[i], gates.shape)
    axes, rows = {"query": (3, 1), "head": (2, n), "all": (0, gates[..., 0].size)}[scope]
    flat = gates.reshape(*gates.shape[:axes], -1)
    own, out = own.reshape(flat.shape), np.zeros(flat.shape, bool)
    for at in np.ndindex(flat.shape[:-1]):
        out[at] = choose(flat[at], own[at], cut, tau, topk, rows)
    return out.reshape(gates.shape)[..., box] & visible(q, k, causal)
