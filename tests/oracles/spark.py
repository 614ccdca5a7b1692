"""Spark Transformer (arXiv 2506.06644): statistical top-k of products over the first channels."""
from statistics import NormalDist

import numpy as np
from common import logits, visible

small = {"top_k": 20, "channels": 12}
planted = {"top_k": 96}


def kept(q, k, v, causal=True, offset=None, channels=0, **params):
    count, r = params.get("top_k", 256), channels or -(-q.shape[3] // 2)
    seen = visible(q, k, causal, offset)
    s = logits(q[..., :r], k[..., :r])
    out = np.zeros(s.shape, bool)
    for at in np.ndindex(s.shape[:3]):
        x, m = s[at][seen[at]], seen[at].sum()
        if m > count:
            least = x.mean() + x.std() * NormalDist().inv_cdf(1 - count / m)
            out[at] = seen[at] & (s[at] >= least)
        else:
            out[at] = seen[at]
    return out
