"""InfLLM-V2 (arXiv 2509.24663): blocks by the largest overlapping mean, one set a group."""
from common import best_blocks, compressed, visible

small = {"topk": 5, "block": 24, "local": 1, "kernel": 12, "stride": 6, "dense_len": 0}
planted = {"topk": 6, "block": 32, "local": 1, "kernel": 8, "stride": 4}
by_group = True


def example(q, k, causal=True, offset=None):
    return {"coarse": 4}


def kept(q, k, v, topk=64, block=64, init=1, local=32, kernel=32, stride=16, dense_len=8192,
         coarse=0, causal=True, offset=None):
    if k.shape[2] <= dense_len:
        return visible(q, k, True, offset)
    s = compressed(q, k, kernel, stride, block, True, coarse=coarse)
    return best_blocks(s, topk, block, init, local, q, k)
