"""Gemma 2 (arXiv 2408.00118): logits cap * tanh(x / cap), before the mask."""
from common import attention, visible


def kept(q, k, v, cap=50.0, causal=True, offset=None):
    return visible(q, k, causal, offset)


def attend(q, k, v, cap=50.0, causal=True, offset=None):
    return attention(q, k, v, visible(q, k, causal, offset), softcap=cap)
