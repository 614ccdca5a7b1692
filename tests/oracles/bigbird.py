"""Big Bird (arXiv 2007.14062), internal form in blocks; draws by counter as its record says."""
import numpy as np
from common import positions, spread, tiles_where, uniform, visible

small = {"block": 16, "random": 2, "seed": 5}


def example(q, k, causal=True, offset=None):
    rows, cols = -(-q.shape[2] // 16), -(-k.shape[2] // 16)
    drawn = np.random.default_rng(1).integers(-1, cols, (1, q.shape[1], rows, 2))
    return {"block": 16, "drawn": drawn.astype(np.int32)}


def kept(q, k, v, block=64, window=3, random=3, seed=0, drawn=None, causal=True, offset=None,
         **params):
    ends, last = params.get("global", 1), (k.shape[2] - 1) // block
    wide = {t for t in range(last + 1) if t < ends or t > last - ends}
    fixed = tiles_where(lambda h, own, c: abs(own - c) <= window // 2 or own in wide or c in wide,
                        q.shape[1], block, block, q, k, offset)
    seen = tiles_where(lambda h, own, c: c <= own or not causal, 1, block, block, q, k, offset)
    start = positions(q, k, offset)[0][0, 0]
    for h in range(q.shape[1]):
        for r in range(fixed.shape[2]):
            own = (start + r * block) // block
            free = [c for c in range(last + 1) if seen[0, 0, r, c] and not fixed[0, h, r, c]]
            if drawn is not None:
                free = [c for c in drawn[0, h, r] if c >= 0]
            free.sort(key=lambda c: (-uniform(seed, h, own, c), c))
            fixed[0, h, r, free if drawn is not None else free[:random]] = True
    return spread(fixed, block, block, q, k) & visible(q, k, causal, offset)
