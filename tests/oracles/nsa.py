"""NSA (arXiv 2502.11089): compressed keys, best blocks and a window, finished apart and weighed."""
import numpy as np
from common import attention, best_blocks, compressed, phi, positions, rotated, visible

small = {"stride": 6, "block": 24, "topk": 4, "window": 30, "rope": 10000.0}
planted = {"window": 32, "width": 64}
sees, by_group = (), True  # its compressed keys read everything


def example(q, k, causal=True, offset=None):  # phi where the number of keys is odd, else means
    rng, (h, n, d), hk = np.random.default_rng(5), q.shape[1:], k.shape[1]
    out, dv = {"gate": rng.random((1, h, n, 3)) / 3, "width": 12}, {24: 40}.get(d, d)
    if k.shape[2] % 2:
        out |= {"k_position": rng.normal(0, 1, (1, hk, 12, d)),
                "k_first": rng.normal(0, 0.1, (1, hk, 12 * d + 1, 9)),
                "k_second": rng.normal(0, 0.5, (1, 1, 10, d)),
                "v_first": rng.normal(0, 0.1, (1, 1, 12 * dv, dv))}
    return {name: np.float32(x) if np.ndim(x) else x for name, x in out.items()}


def twin(q, k, causal=True, offset=None):
    return {"gate": np.tile(np.float32([0, 1, 0]), (1, 1, q.shape[2], 1)), "topk": 10**9}


def parts(q, k, v, width=32, stride=16, block=64, topk=16, init=1, local=1, window=512, rope=0.0,
          act="relu", **w):
    i, j = positions(q, k)
    keys = phi("k", rotated(np.float64(k), -np.arange(k.shape[2]), rope), width, stride, act, **w)
    values = phi("v", v, width, stride, act, **w)
    begin = np.arange(keys.shape[2]) * stride
    keys = rotated(keys, begin, rope)
    s = compressed(q, k, width, stride, block, False, keys)
    seen = np.broadcast_to(begin + width - 1 <= i, q.shape[:3] + begin.shape)
    near = visible(q, k, True) & (i - j <= window)
    return [(keys, values, seen), (k, v, best_blocks(s, topk, block, init, local, q, k)),
            (k, v, near)], (begin[:, None] <= j) & (j < begin[:, None] + width)


def kept(q, k, v, causal=True, offset=None, gate=None, **params):
    (compress, select, near), tokens = parts(q, k, v, **params)
    return (compress[2] @ tokens) | select[2] | near[2]


def attend(q, k, v, causal=True, offset=None, gate=None, **params):
    done = [attention(q, *part) for part in parts(q, k, v, **params)[0]]
    out = sum(np.asarray(gate[..., n : n + 1], o.dtype) * o for n, (o, _) in enumerate(done))
    return out, np.logaddexp.reduce([lse for _, lse in done])
