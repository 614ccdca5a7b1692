"""EE-MLLM (arXiv 2408.11795): text reads all it sees, visual tokens read nothing."""
from common import positions, visible

small = {"first": 9, "visual": 71}


def kept(q, k, v, first=0, visual=576, causal=True, offset=None):
    i, _ = positions(q, k, offset)
    return visible(q, k, causal, offset) & ~((first <= i) & (i < first + visual))
