"""PrFlashAttention, abstract only: blocks by chance, rarer with distance (our reading)."""
import math

from common import spread, tiles_where, uniform, visible

small = {"block": 16, "tau": 3, "seed": 2}


def kept(q, k, v, block=64, falloff="exp", tau=8.0, seed=0, causal=True, offset=None):
    chance = {"exp": lambda d: math.exp(-d / tau), "reciprocal": lambda d: tau / (tau + d)}[falloff]
    tiles = tiles_where(lambda h, own, c: uniform(seed, h, own, c) < chance(abs(own - c)),
                        q.shape[1], block, block, q, k, offset)
    return spread(tiles, block, block, q, k) & visible(q, k, causal, offset)
