"""What every oracle shares: naive attention over a mask of allowed pairs, and positions."""
import numpy as np

precision = np.float64  # tests set float32 to learn what a naive implementation loses


def attention(q, k, v, mask, scale=None, bias=0.0, softcap=0.0, sink=None):
    """q [B,H,N,D], k and v [B,Hk,M,*], mask [B,H,N,M] -> out [B,H,N,Dv], lse [B,H,N]."""
    q, k, v = (np.asarray(x, precision) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    s = np.einsum("bhid,bhjd->bhij", q, k) * precision(scale or q.shape[-1] ** -0.5)
    if softcap:
        s = softcap * np.tanh(s / softcap)
    s = np.where(mask, s + np.asarray(bias, precision), -np.inf)
    top = s.max(-1, keepdims=True)
    if sink is not None:
        sink = np.reshape(np.asarray(sink, precision), (1, -1, 1, 1))
        top = np.maximum(top, sink)
    top = np.where(np.isfinite(top), top, 0.0)
    p = np.exp(s - top)
    total = p.sum(-1, keepdims=True)
    if sink is not None:
        total = total + np.exp(sink - top)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + top)[..., 0]
    return p / np.where(total == 0, 1, total) @ v, lse


def positions(q, k, offset=None):
    """Columns of query positions [N,1] and rows of key positions [1,M]; the last meets the last."""
    n, m = q.shape[2], k.shape[2]
    return np.arange(n)[:, None] + (m - n if offset is None else offset), np.arange(m)[None, :]


def visible(q, k, causal, offset=None):
    i, j = positions(q, k, offset)
    return np.broadcast_to(j <= i if causal else j >= 0, q.shape[:2] + (q.shape[2], k.shape[2]))


def repeat_heads(q, k):
    return np.repeat(np.asarray(k, np.float64), q.shape[1] // k.shape[1], 1)


def tile_sums(p, side):
    """Sums over tiles of side x side of the last two axes; the last tiles may be smaller."""
    p = np.add.reduceat(p, np.arange(0, p.shape[2], side), 2)
    return np.add.reduceat(p, np.arange(0, p.shape[3], side), 3)


def tokens_of(tiles, bq, bk, q, k):
    """[B,H,rows,cols] of tiles -> [B,H,N,M] of their pairs."""
    return np.repeat(np.repeat(tiles, bq, 2), bk, 3)[:, :, : q.shape[2], : k.shape[2]]


def tiles_where(rule, heads, bq, bk, q, k, offset=None):
    """[1,heads,rows,cols]: rule(h, own, c) for a key tile `own` that holds the row's own positions."""
    n, start = q.shape[2], positions(q, k, offset)[0][0, 0]
    rows, cols = -(-n // bq), -(-k.shape[2] // bk)
    owns = [range((start + r * bq) // bk, (start + min((r + 1) * bq, n) - 1) // bk + 1)
            for r in range(rows)]
    return np.array([[[[any(rule(h, own, c) for own in owns[r]) for c in range(cols)]
                       for r in range(rows)] for h in range(heads)]])


def spread(tiles, bq, bk, q, k):
    """tokens_of for tiles of 1 or all batch items, and of 1 head, KV heads or all heads."""
    tiles = np.repeat(tiles, q.shape[1] // tiles.shape[1], 1)
    return tokens_of(np.broadcast_to(tiles, q.shape[:1] + tiles.shape[1:]), bq, bk, q, k)


def uniform(seed, a, b, c):
    """SplitMix64 of a place: chained over its three coordinates; the upper 24 bits in [0, 1)."""
    def mix(x):
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) % 2**64
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) % 2**64
        return x ^ x >> 31
    x = mix(int(seed))
    for at in (a, b, c):
        x = mix((x + int(at)) % 2**64)
    return (x >> 40) * 2.0**-24
