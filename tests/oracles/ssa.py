"""SSA (arXiv 2511.20102), sparse stream: best blocks by attention to their means, a set a group."""
from common import best_blocks, compressed, visible

small = {"block": 12, "blocks": 6}
planted = {"block": 16, "blocks": 12}
by_group = True


def kept(q, k, v, block=16, blocks=16, init=1, local=1, full=False, causal=True, offset=None):
    if full:
        return visible(q, k, True, offset)
    s = compressed(q, k, block, block, block, False)
    return best_blocks(s, blocks, block, init, local, q, k)
