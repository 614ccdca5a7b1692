"""Exact attention: every pair that causality allows."""
from common import attention, visible


def kept(q, k, v, causal=True, offset=None):
    return visible(q, k, causal, offset)


def attend(q, k, v, causal=True, offset=None):
    return attention(q, k, v, kept(q, k, v, causal, offset))
