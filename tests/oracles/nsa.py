"""NSA (arXiv 2502.11089): means, best blocks and a window, each finished and then weighed."""
import numpy as np
from common import (attention, attention_of_levels, best_blocks, compressed, positions, visible)

small = {"width": 12, "stride": 6, "block": 24, "topk": 4, "window": 30}
planted = {"window": 32, "width": 64}
sees = ()  # its means read everything
by_group = True


def example(q, k, causal=True, offset=None):
    gate = np.random.default_rng(5).random((1, q.shape[1], q.shape[2], 3)) / 3
    return {"gate": gate.astype(np.float32)}


def twin(q, k, causal=True, offset=None):
    gate = np.zeros((1, 1, q.shape[2], 3), np.float32)
    gate[..., 1] = 1
    return {"gate": gate, "topk": 10**9}


def branches(q, k, width=32, stride=16, block=64, topk=16, init=1, local=1, window=512, gate=None):
    i, j = positions(q, k)
    s = compressed(q, k, width, stride, block, False)
    return (best_blocks(s, topk, block, init, local, q, k),
            visible(q, k, True) & (i - j <= window))


def kept(q, k, v, causal=True, offset=None, width=32, **params):
    selected, near = branches(q, k, width=width, **params)
    i, m = positions(q, k)[0], k.shape[2]
    ends = np.minimum(np.arange(m) // width * width + width, m) - 1
    return selected | near | (ends <= i)


def attend(q, k, v, causal=True, offset=None, gate=None, width=32, **params):
    selected, near = branches(q, k, width=width, **params)
    means = np.ones(q.shape[:3] + (-(-k.shape[2] // width),), bool)
    parts = [attention_of_levels(q, k, v, [(width, means)], True), attention(q, k, v, selected),
             attention(q, k, v, near)]
    out = sum(np.asarray(gate[..., n : n + 1], o.dtype) * o for n, (o, _) in enumerate(parts))
    return out, np.logaddexp.reduce([lse for _, lse in parts])
