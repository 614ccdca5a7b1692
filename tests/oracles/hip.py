"""HiP (arXiv 2406.09827), algorithm 1: tree search with the first keys as representatives."""
import numpy as np
from common import logits, visible

small = {"mask_k": 24, "block_q": 16, "block_k": 3, "window": 20, "sink": 4}
planted = {"mask_k": 96, "block_k": 2}


def search(s, candidates, mask_k, block):  # s: [rows, keys] of one query block
    blocks, m = -(-candidates // block), max(1, mask_k // block)
    nodes = [(blocks * i // m, blocks * (i + 1) // m) for i in range(m)]
    group = blocks / m
    while group > 1:
        halves = [(a, a + (b - a) // 2, b) for a, b in nodes]
        children = [c for a, mid, b in halves for c in ((a, mid), (mid, b)) if c[0] < c[1]]
        worth = [s[:, a * block : (a + 1) * block].max() for a, _ in children]
        best = np.argsort(-np.array(worth), kind="stable")[:m]
        nodes, group = [children[i] for i in sorted(best)], group / 2
    return [j for a, _ in nodes for j in range(a * block, (a + 1) * block)]


def kept(q, k, v, mask_k=512, block_q=32, block_k=2, window=128, sink=0, causal=True):
    n, m = q.shape[2], k.shape[2]
    s, out = logits(q, k), np.zeros(q.shape[:3] + (m,), bool)
    for b, h in np.ndindex(q.shape[:2]):
        for i in range(0, n, block_q):
            stop = min(i + block_q, n)
            end = m - n + stop
            candidates = max(0, end - window)
            out[b, h, i:stop, candidates:end] = True
            out[b, h, i:stop, :sink] = True
            if candidates <= mask_k:
                out[b, h, i:stop, :end] = True
            else:
                odd = s[b, h, min(i + 1, stop - 1) : stop : 2, :end]
                out[b, h, i:stop, search(odd, candidates, mask_k, block_k)] = True
    return out & visible(q, k, True)
