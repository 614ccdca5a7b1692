"""PBS-Attn (arXiv 2510.21270): keys sorted in segments, blocks of earlier segments by coverage."""
import numpy as np
from common import block_means, last_positions, positions, repeat_heads, softmax, visible

small = {"block_size": 16, "segment_size": 64, "threshold": 0.5}
planted = {"threshold": 0.68}


def permutation(q, keys, segment, probe):
    whole = len(keys) // segment * segment
    order = np.arange(len(keys))
    if whole:
        mass = softmax(q[-probe:] @ keys[:whole].T * q.shape[-1] ** -0.5).mean(0)
        for first in range(0, whole, segment):
            own = mass[first : first + segment]
            order[first : first + segment] = first + np.argsort(-own, kind="stable")
    return order


def kept(q, k, v, threshold=0.9, block_size=128, segment_size=256, force_select_first_block=True,
         causal=True, offset=None):
    n, m, b = q.shape[2], k.shape[2], block_size
    out = visible(q, k, causal, offset).copy()
    if m <= segment_size:
        return out
    start = positions(q, k, offset)[0][0, 0]
    last = last_positions(q, k, b, offset)
    first = start + np.arange(0, n, b)
    cols = np.arange(-(-m // b))
    segment_of = cols * b // segment_size
    own = np.array([np.isin(segment_of, np.arange(f, z + 1) // b * b // segment_size)
                    for f, z in zip(first, last)])
    for at in np.ndindex(q.shape[:2]):
        query, keys = np.float64(q[at]), repeat_heads(q, k)[at]
        order = permutation(query, keys, segment_size, b)
        s = block_means(query, b) @ block_means(keys[order], b).T * q.shape[-1] ** -0.5
        s = np.where((cols * b <= last[:, None]) & ~own, s, -np.inf)
        p = softmax(s)
        best, sorted_p = np.argsort(-p, 1, kind="stable"), -np.sort(-p, 1)
        keep = np.zeros_like(own)
        np.put_along_axis(keep, best, sorted_p.cumsum(1) - sorted_p < threshold, 1)
        keep = own | (keep & np.isfinite(s).any(1, keepdims=True))
        if force_select_first_block:
            keep[:, int(np.argwhere(order == 0)[0, 0]) // b] = True
        block_of_key = np.empty(m, int)
        block_of_key[order] = np.arange(m) // b
        out[at] &= keep[np.arange(n) // b][:, block_of_key]
    return out
