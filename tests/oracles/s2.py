"""S2-Attention (arXiv 2407.17678): local blocks, and each head's share of the strided ones."""
from common import spread, tiles_where, visible

small = {"block": 16, "local_blocks": 2, "vert_stride": 5, "offset": 1,
         "num_dense_heads": 1}
by_group = True  # head=kv numbers by KV head


def kept(q, k, v, block=64, local_blocks=16, vert_stride=8, offset=0, head="query",
         num_dense_heads=0, strides="absolute", causal=True):
    step = max(1, vert_stride // q.shape[1])
    heads = {"query": q.shape[1], "kv": k.shape[1], "one": 1}[head]

    def rule(h, own, c):
        at = c + h * step + offset if strides == "absolute" else abs(own - c)
        return abs(own - c) < local_blocks or at % vert_stride == 0 or h >= heads - num_dense_heads
    tiles = tiles_where(rule, heads, block, block, q, k)
    return spread(tiles, block, block, q, k) & visible(q, k, causal)
