"""What every oracle shares: naive attention over a mask of allowed pairs, and positions."""
import math

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
    """[1,heads,rows,cols]: rule(h, own, c) for a key tile `own` with the row's own positions."""
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


def bits(seed, a, b, c):
    """SplitMix64 of a place: chained over its three coordinates."""
    def mix(x):
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) % 2**64
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) % 2**64
        return x ^ x >> 31
    x = mix(int(seed))
    for at in (a, b, c):
        x = mix((x + int(at)) % 2**64)
    return x


def uniform(seed, a, b, c):
    """The upper 24 bits of a place, in [0, 1)."""
    return (bits(seed, a, b, c) >> 40) * 2.0**-24


def normals(seed, a, rows, cols):
    """[rows, cols] standard normal numbers (Box and Muller) of the places (a, row, col)."""
    u = np.array([[uniform(seed, a, r, n) for n in range(2 * cols)] for r in range(rows)])
    return np.sqrt(-2 * np.log(1 - u[:, ::2])) * np.cos(2 * np.pi * u[:, 1::2])


def logits(q, k):
    """[B,H,N,M] of q.k / sqrt(d) in float64."""
    return np.einsum("bhid,bhjd->bhij", np.float64(q), repeat_heads(q, k)) * q.shape[-1] ** -0.5


def softmax(s):
    """Over the last axis; a row of -inf becomes 0."""
    top = s.max(-1, keepdims=True)
    p = np.exp(s - np.where(np.isfinite(top), top, 0))
    return p / np.maximum(p.sum(-1, keepdims=True), 1e-300)


def block_means(x, block):
    """[.., tokens, d] -> [.., blocks, d]; the last block's mean is over the tokens it has."""
    x = np.float64(x)
    return np.stack([x[..., i : i + block, :].mean(-2) for i in range(0, x.shape[-2], block)], -2)


def pooled_logits(q, k, bq, bk, causal, offset=None):
    """Products of means, scaled; -inf where no pair is causal."""
    s = logits(block_means(q, bq), block_means(k, bk))
    last = last_positions(q, k, bq, offset)[:, None]
    return np.where((np.arange(s.shape[3]) * bk <= last) | (not causal), s, -np.inf)


def last_positions(q, k, bq, offset=None):
    """Position of the last query of every tile row."""
    n, start = q.shape[2], positions(q, k, offset)[0][0, 0]
    return start + np.minimum(np.arange(bq, n + bq, bq), n) - 1


def best_first(s):
    """Indices by descending score, then ascending index; -inf is left out."""
    order = np.argsort(-s, kind="stable")
    return order[s[order] > -np.inf]


def covering(s, goal, crossing=True, least=0, most=10**9):
    """Best first until `goal` of the total is reached: the crossing item kept, or not."""
    order = best_first(s)
    after = np.cumsum(s[order])
    before = np.concatenate([[0], after[:-1]])
    total = s[s > -np.inf].sum()
    count = int(np.sum(before < goal * total if crossing else after <= goal * total))
    out = np.zeros(s.shape, bool)
    out[order[: min(max(count, least), most)]] = True
    return out


def rows_of(s, choose):
    """choose(b, h, r, scores) for every row of [B,H,R,C]."""
    out = np.zeros(s.shape, bool)
    for at in np.ndindex(s.shape[:3]):
        out[at] = choose(*at, s[at])
    return out


def top(s, count):
    """The `count` best of a row as a mask."""
    out = np.zeros(s.shape, bool)
    out[best_first(s)[: max(int(count), 0)]] = True
    return out


def exact(q, k, causal, offset=None):
    """Probabilities of exact attention."""
    return softmax(np.where(visible(q, k, causal, offset), logits(q, k), -np.inf))


def sums(p, bq, bk):
    """Sums over tiles of bq x bk of the last two axes."""
    p = np.add.reduceat(p, np.arange(0, p.shape[2], bq), 2)
    return np.add.reduceat(p, np.arange(0, p.shape[3], bk), 3)


def drawn(block, count, seed, head, which):
    """Offsets inside a block, as the sampling methods' records state: a shuffle by counter."""
    return sorted(sorted(range(block), key=lambda o: bits(seed, head, which, o))[:count])


def sampled_scores(q, k, bq, bk, nq, nk, seed, normalised, causal, q_offsets=None, k_offsets=None):
    """Softmax over sampled pairs, the largest of each tile; -inf where no pair is causal."""
    n, m, start = q.shape[2], k.shape[2], k.shape[2] - q.shape[2]
    out = pooled_logits(q, k, bq, bk, causal)
    out = np.where(np.isfinite(out), 0.0, -np.inf)
    full = logits(q, k)
    for h in range(q.shape[1]):
        q_at = drawn(bq, nq, seed, h, 0) if q_offsets is None else np.ravel(q_offsets)
        k_at = drawn(bk, nk, seed, h, 1) if k_offsets is None else np.ravel(k_offsets)
        qs = [min(b + o, n - 1) for b in range(0, n, bq) for o in q_at]
        ks = [min(b + o, m - 1) for b in range(0, m, bk) for o in k_at]
        s = full[:, h][:, qs][:, :, ks]
        seen = (np.array(ks) <= np.array(qs)[:, None] + start) | (not causal)
        s = np.where(seen, s, -np.inf)
        p = np.where(seen, np.exp(s - np.where(seen.any(-1), s.max(-1), 0)[..., None]), 0)
        if normalised:
            p = p / np.maximum(p.sum(-1, keepdims=True), 1e-300)
        p = np.maximum.reduceat(p, np.arange(0, len(qs), len(q_at)), 1)
        p = np.maximum.reduceat(p, np.arange(0, len(ks), len(k_at)), 2)
        out[:, h] = np.maximum(out[:, h], np.where(np.isfinite(out[:, h]), p, -np.inf))
    return out


def attention_of_levels(q, k, v, levels, causal, offset=None):
    """One softmax over keys and over means of w tokens that weigh ln w more.

    levels: list of (w, mask over the ceil(M / w) means); a mean is visible once all of it is.
    """
    ks, vs, masks, weight = [], [], [], []
    i = positions(q, k, offset)[0]
    for w, mask in levels:
        count = np.minimum(np.arange(w, k.shape[2] + w, w), k.shape[2]) - np.arange(
            0, k.shape[2], w)
        last = np.arange(0, k.shape[2], w) + count - 1
        ks.append(block_means(k, w) if w > 1 else np.float64(k))
        vs.append(block_means(v, w) if w > 1 else np.float64(v))
        masks.append(mask & ((last <= i) | (not causal)))
        weight.append(np.log(count))
    return attention(q, np.concatenate(ks, 2), np.concatenate(vs, 2), np.concatenate(masks, 3),
                     bias=np.concatenate(weight))


def phi(name, x, width, stride, act, **weights):
    """NSA's compression: an MLP of a block's tokens side by side, their mean without weights."""
    position, first, second = (weights.get(f"{name}_{part}")
                               for part in ("position", "first", "second"))
    begin = range(0, max(x.shape[2] - width + 1, 0), stride)
    out = np.zeros((*x.shape[:2], max(1, len(begin)), x.shape[3]))  # at least one, seen by none
    acts = {"relu": lambda y: np.maximum(y, 0), "silu": lambda y: y / (1 + np.exp(-y)),
            "gelu": lambda y: y * (1 + np.vectorize(math.erf)(y / 2**0.5)) / 2}
    for n, b in enumerate(begin):
        y = np.float64(x[:, :, b : b + width])
        if first is None:
            out[:, :, n] = y.mean(2)
            continue
        y = (y + (0 if position is None else position)).reshape(*x.shape[:2], 1, -1)
        for w in [first] if second is None else [first, second]:
            y = acts[act](y) if w is second else y
            w = np.float64(w)
            y = y @ w[:, :, : y.shape[3]] + w[:, :, y.shape[3] :].sum(2, keepdims=True)
        out[:, :, n] = y[:, :, 0]
    return out


def mixed(q, k, v, seen, near, low_rank):
    """Weights exp(logit) where near and low_rank elsewhere, under one denominator."""
    with np.errstate(divide="ignore"):
        exact = logits(q, k).astype(precision)
        s = np.where(seen, np.where(near, exact, np.log(low_rank)), -np.inf)
    top = s.max(-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    p = np.exp(s - top)
    total = p.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + top)[..., 0]
    return p / np.where(total == 0, 1, total) @ repeat_heads(q, v).astype(precision), lse


def clusters(q, k, hashes, cluster):
    """SMYRF (arXiv 2010.05315): equal parts, sorted by products of vectors of one length."""
    squares = [np.square(np.float64(x)).sum(-1) for x in (q, k)]
    limit = sum(s.max() for s in squares)
    out, parts = np.zeros((len(q), len(k)), bool), -(-len(k) // cluster)
    for w in hashes:
        part = []
        for x, s, last, side in zip((q, k), squares, w[[-1, -2]], (-(-len(q) // parts), cluster)):
            place = np.argsort(np.float64(x) @ w[:-2] + np.sqrt(limit - s) * last, kind="stable")
            part.append(np.argsort(place) // side)
        out |= part[0][:, None] == part[1]
    return out


def compressed(q, k, width, stride, block, maximum, keys=None, coarse=0):
    """Causal attention to overlapping means, summed over a group, gathered to blocks.

    [B, Hk, N, blocks]; a mean is visible once all its keys are; a block takes the means that
    overlap it, each by overlap / stride, or their maximum. -inf past the query's own block.
    """
    n, m, i = q.shape[2], k.shape[2], positions(q, k)[0]
    begin = np.arange(0, max(m - width + 1, 0), stride)
    out = np.zeros((q.shape[0], k.shape[1], n, -(-m // block)))
    if len(begin):
        mean = phi("k", k, width, stride, "") if keys is None else keys
        s = np.where(begin + width - 1 <= i, logits(q, mean), -np.inf)
        p = softmax(s)
        if coarse:  # the sum of exponentials is that over wider means; 0 where none is seen
            wide = phi("k", k, coarse * width, coarse * stride, "")
            last = np.arange(wide.shape[2]) * coarse * stride + coarse * width - 1
            rough = np.where(last <= np.minimum(i, m - 1), logits(q, wide), -np.inf)
            total = np.exp(rough).sum(-1, keepdims=True)
            p = np.where(total > 0, np.exp(s) / np.where(total > 0, total, 1), 0)
        p = p.reshape(q.shape[0], k.shape[1], -1, *p.shape[2:]).sum(2)
        for c in range(out.shape[3]):
            over = np.minimum(begin + width, c * block + block) - np.maximum(begin, c * block)
            if maximum and (over > 0).any():
                out[..., c] = p[..., over > 0].max(-1)
            elif not maximum:
                out[..., c] = p @ (np.maximum(over, 0) / stride)
    return np.where(np.arange(out.shape[3]) <= i // block, out, -np.inf)


def best_blocks(s, count, block, init, local, q, k):
    """Tokens of the best blocks of every query, first and nearest ones forced and counted."""
    own, c = positions(q, k)[0] // block, np.arange(s.shape[3])
    s = np.where((c <= own) & ((c < init) | (own - c <= local)), np.inf, s)
    forced = (s == np.inf).sum(-1)
    keep = rows_of(s, lambda b, h, r, row: top(row, max(count, forced[b, h, r])))
    keep = np.repeat(keep, q.shape[1] // k.shape[1], 1)
    return tokens_of(keep, 1, block, q, k) & visible(q, k, True)


def rotated(x, position, base):
    """Rotary embedding at `position`, halves paired; base 0: none."""
    if not base:
        return x
    half = x.shape[-1] // 2
    angle = np.reshape(position, (-1, 1)) * base ** (-2.0 * np.arange(half) / x.shape[-1])
    a, b = x[..., :half], x[..., half : 2 * half]
    rest = x[..., 2 * half :]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle),
                           b * np.cos(angle) + a * np.sin(angle), rest], -1)


def divergence(a, b):
    """Root of the Jensen-Shannon divergence of two distributions; 0 ln 0 is 0."""
    kl = [sum(x * np.log(2 * x / (x + y)) for x, y in zip(p, r) if x > 0)
          for p, r in ((a, b), (b, a))]
    return np.sqrt(max(sum(kl) / 2, 0))
