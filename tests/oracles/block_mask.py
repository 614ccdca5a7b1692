"""FlashAttention (arXiv 2205.14135), section 3.3: tile (r, c) is read where mask is set."""
import numpy as np
from common import tokens_of, visible


def example(q, k, causal=True, offset=None, block_q=64, block_k=64):
    rows, cols = -(-q.shape[2] // block_q), -(-k.shape[2] // block_k)
    shape = (1, q.shape[1], rows, cols)
    return {"mask": (np.random.default_rng(rows * cols).random(shape) < 0.5).astype(np.float32)}


def twin(q, k, causal=True, offset=None):
    return {"mask": np.ones_like(example(q, k)["mask"])}


def kept(q, k, v, mask, block_q=64, block_k=64, causal=True, offset=None):
    return tokens_of(mask != 0, block_q, block_k, q, k) & visible(q, k, causal, offset)
