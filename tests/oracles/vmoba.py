"""VMoBA (arXiv 2506.23858): own box, and others by spread gates until tau of their sum."""
import numpy as np
from common import positions, repeat_heads, visible

small = {"chunk_t": 24, "tau": 0.4, "topk": 2}
planted = {"chunk_t": 32, "cut": "topk", "topk": 6, "scope": "query"}
rows_compete = True  # scope=head


def boxes(n, frames, height, width, chunk_t, chunk_h, chunk_w):
    grid = (frames, height, width) if frames else (n, 1, 1)
    box = [c or g for c, g in zip((chunk_t, chunk_h, chunk_w), grid)]
    at = np.stack(np.unravel_index(np.arange(n), grid), 1) // box
    return np.unique(at, axis=0, return_inverse=True)[1].ravel()


def choose(g, own, cut, tau, topk, rows, alone):  # one scope: flat gates and forced items
    finite = np.isfinite(g)
    low, high = g[finite].min(), g[finite].max()
    g = np.where(finite, (g - low) / (high - low) if high > low else 0.0, -np.inf)
    keep, order = own.copy(), [i for i in np.argsort(-g, kind="stable") if finite[i] and not own[i]]
    total, so_far, count = g[finite].sum(), g[own & finite].sum(), own.sum()
    for i in order:
        inside = so_far < tau * total if cut == "threshold" else count < topk * rows
        if not inside and not (alone and cut == "threshold" and count < 2):
            break
        keep[i], so_far, count = True, so_far + g[i], count + 1
    return keep


def kept(q, k, v, frames=0, height=1, width=1, chunk_t=512, chunk_h=0, chunk_w=0,
         cut="threshold", tau=0.25, topk=3, scope="query", causal=True, offset=None):
    n, m = q.shape[2], k.shape[2]
    box = boxes(m, frames, height, width, chunk_t, chunk_h, chunk_w)
    count = box.max() + 1
    mean = np.stack([repeat_heads(q, k)[:, :, box == c].mean(2) for c in range(count)], 2)
    gates = np.einsum("bhid,bhcd->bhic", np.float64(q), mean)
    i = positions(q, k)[0]
    first = np.array([np.flatnonzero(box == c)[0] for c in range(count)])
    gates = np.where((first <= i) | (not causal), gates, -np.inf)
    own = np.broadcast_to(np.arange(count) == box[i], gates.shape)
    axes = {"query": 3, "head": 2, "all": 0}[scope]
    rows = {"query": 1, "head": n, "all": gates[..., 0].size}[scope]
    flat = gates.reshape(*gates.shape[:axes], -1)
    own = own.reshape(flat.shape)
    out = np.zeros(flat.shape, bool)
    for at in np.ndindex(flat.shape[:-1]):
        out[at] = choose(flat[at], own[at], cut, tau, topk, rows, scope == "query")
    return out.reshape(gates.shape)[..., box] & visible(q, k, causal)
