"""PowerAttention (arXiv 2503.03588): block distances that are powers of two, window and sinks."""
from common import spread, tiles_where, visible

small = {"block": 16, "window": 20, "sink": 3}


def kept(q, k, v, block=64, window=512, sink=64, causal=True, offset=None):
    powers = {0} | {2**e for e in range(40)}
    tiles = tiles_where(lambda h, own, c: abs(own - c) in powers or abs(own - c) * block < window
                        or c * block < sink, 1, block, block, q, k, offset)
    return spread(tiles, block, block, q, k) & visible(q, k, causal, offset)
