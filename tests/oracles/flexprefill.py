"""FlexPrefill (arXiv 2502.20766), algorithms 1 to 4, in blocks; choices as its record states."""
import numpy as np
from common import (best_first, block_means, covering, divergence, exact, pooled_logits, softmax,
                    spread, visible)

small = {"gamma": 0.7, "tau": 0.45, "min_budget": 40, "block": 32}
planted = {"tau": 0.1, "gamma": 0.9}
rows_compete = True


def count(mass, gamma, block, least):  # tokens that cover gamma, in blocks
    total = np.cumsum(np.sort(mass)[::-1])
    return max((int(np.sum(total[:-1] < gamma * total[-1])) + 1) // block + 1, least)


def tiles(v, s, nv, ns, own, cols):
    v, s = v.copy(), s.copy()
    v[0] = s[0] = np.inf
    columns, slashes = set(best_first(v)[:nv]), set(best_first(s)[:ns])
    return [[any(c <= o and (c in columns or o - c in slashes) for o in os) for c in range(cols)]
            for os in own]


def kept(q, k, v, gamma=0.9, tau=0.1, min_budget=1024, block=128, cut="paper", causal=True):
    n, m = q.shape[2], k.shape[2]
    start, last = m - n, min(block, n)
    p, least = exact(q, k, True)[:, :, -last:], -(-min_budget // block)
    distance = (start + np.arange(n - last, n))[:, None] - np.arange(m)
    pooled = softmax(pooled_logits(q, k, block, block, True))
    own = [range((start + r) // block, (start + min(r + block, n) - 1) // block + 1)
           for r in range(0, n, block)]
    out = np.zeros(pooled.shape, bool)
    for b, h in np.ndindex(q.shape[:2]):
        vertical = p[b, h].sum(0)
        slash = np.bincount(distance[distance >= 0], p[b, h][distance >= 0], m)
        vb, sb = (np.add.reduceat(x, np.arange(0, m, block)) for x in (vertical, slash))
        keys = k[b, h * k.shape[1] // q.shape[1]]
        guess = block_means(keys, block) @ np.float64(q[b, h, -last:]).mean(0) * q.shape[-1] ** -0.5
        aware = divergence(softmax(guess), vb / vb.sum()) < tau
        best = (least if aware else count(x, gamma, block, least) for x in (vertical, slash))
        out[b, h] = tiles(vb, sb, *best, own, len(vb))
        if aware:
            flat = covering(pooled[b, h].ravel(), gamma, cut == "paper")
            out[b, h] |= flat.reshape(out[b, h].shape) & (pooled[b, h] > 0)
    return spread(out, block, block, q, k) & visible(q, k, True)
