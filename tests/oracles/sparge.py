"""SpargeAttn (arXiv 2502.18137): self-similar blocks; values skipped by the running maximum."""
import common
import numpy as np
from common import covering, pooled_logits, repeat_heads, rows_of, softmax, tokens_of, top, visible

small = {"block_q": 32, "block_k": 64, "similarity": 0.05, "cdf": 0.8, "lambda": 1.5,
         "attention_sink": True}
leaves_out_values = True  # of what the mask keeps
planted = {"similarity": -1.0}
sees = ()  # means of planted codes and noise are flat, so it covers its share with many tiles


def alike(x, block, tail):  # mean of all cosines inside a block
    x = np.float64(x) / np.maximum(np.linalg.norm(np.float64(x), axis=-1, keepdims=True), 1e-12)
    out = [x[:, :, i : i + block].mean(2) for i in range(0, x.shape[2], block)]
    out = np.stack([np.square(m).sum(-1) for m in out], -1)
    if tail == "code" and x.shape[2] % block:
        out[..., -1] = -np.inf
    return out


def kept(q, k, v, cut="cdf", cdf=0.98, topk=0.5, similarity=0.6, block_q=128, block_k=64,
         tail="paper", attention_sink=False, causal=True, offset=None, **second_stage):
    k_all = repeat_heads(q, k)
    rows = ~(alike(q, block_q, tail) > similarity)[..., None]
    columns = ~(alike(k_all - k_all.mean(2, keepdims=True), block_k, tail) > similarity)
    columns = columns[:, :, None]
    s = np.where(columns, -np.inf, pooled_logits(q, k, block_q, block_k, causal, offset))
    p = np.where(np.isfinite(s).any(-1, keepdims=True), softmax(s), -np.inf)
    share = max(1, int(topk * s.shape[3]))
    keep = rows_of(p, lambda b, h, r, row: covering(row, cdf, False, 1) if cut == "cdf"
                   else top(row, share))
    keep[..., 0] |= attention_sink
    return tokens_of(keep | rows | columns, block_q, block_k, q, k) & visible(q, k, causal, offset)


def attend(q, k, v, causal=True, offset=None, **params):
    mask = kept(q, k, v, causal=causal, offset=offset, **params)
    out, lse = common.attention(q, k, v, mask)
    if params.get("lambda", 0) == 0:
        return out, lse
    s = np.where(mask, common.logits(q, k), -np.inf)
    tops = np.maximum.reduceat(s, np.arange(0, s.shape[3], 64), 3)
    so_far = np.maximum.accumulate(tops, 3)
    skip = np.repeat(tops < so_far - params["lambda"], 64, 3)[..., : s.shape[3]]
    few, few_lse = common.attention(q, k, v, mask & ~skip)
    share = np.exp(np.where(np.isfinite(lse), few_lse - lse, -np.inf))
    return few * share[..., None], lse
