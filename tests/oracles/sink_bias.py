"""gpt-oss: one more logit a head in the denominator, unscaled and without a value."""
import numpy as np
from common import attention, visible


def example(q, k, causal=True, offset=None):
    return {"logits": np.linspace(-2, 3, q.shape[1]).astype(np.float32)}


def kept(q, k, v, logit=0.0, logits=None, causal=True, offset=None):
    return visible(q, k, causal, offset)


def attend(q, k, v, logit=0.0, logits=None, causal=True, offset=None):
    sink = np.full(q.shape[1], logit) if logits is None else logits
    return attention(q, k, v, visible(q, k, causal, offset), sink=sink)
