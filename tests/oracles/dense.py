"""Exact attention: every pair that causality allows."""
from common import visible


def kept(q, k, v, causal=True, offset=None):
    return visible(q, k, causal, offset)
