"""Plans: which pairs of query and key a method reads."""
import warnings

import numpy as np

from . import _arrays, _regard


class FallbackWarning(RuntimeWarning):
    """A call ran on a slower implementation than the first; the text says why."""


class Plan:
    """What a method reads on one problem: a value, to look at, save and run.

    Made by `regard.plan`; `Plan.from_json` reads one back. `str(plan)` tells its branches and
    densities; in a notebook it draws itself.
    """

    def __init__(self, planned):
        self._planned = planned
        self._cost = None

    @classmethod
    def from_json(cls, text):
        """The plan that `json()` wrote. Raises Error if the text is no plan."""
        return cls(_regard.Planned.from_json(text))

    def json(self):
        """The whole plan as JSON text; equal plans, equal text."""
        return self._planned.json()

    @property
    def method(self):
        """The method and its parameters, 'xattention:threshold=0.9'; '' if read from JSON."""
        return self._planned.spec

    @property
    def problem(self):
        """dict of batch, heads, kv_heads, nq, nk, dk, dv, scale, offset."""
        return self._planned.problem()

    @property
    def cost(self):
        """dict: pairs read, exact_pairs (what exact attention reads), tile_pairs (what a kernel
        computes), tiles, flops, bytes, density, head_pairs (pairs by query head)."""
        if self._cost is None:
            self._cost = self._planned.cost()
        return dict(self._cost)

    @property
    def density(self):
        """Share of exact attention's pairs that the plan reads, all heads together."""
        return self.cost["density"]

    @property
    def head_density(self):
        """[H] float64: the same by query head."""
        c = self.cost
        heads = np.array(c["head_pairs"], dtype=np.float64)
        return heads * len(heads) / c["exact_pairs"] if c["exact_pairs"] else heads

    @property
    def seconds(self):
        """dict of stage -> seconds that making the plan took."""
        return self._planned.trace["seconds"]

    def mask(self):
        """[B, H, Nq, Nk] bool: whether query i may read key j. nq * nk bytes a head.

        A pooled key counts as all tokens of its block.
        """
        p = self.problem
        out = np.zeros((p["batch"], p["heads"], p["nq"], p["nk"]), np.uint8)
        self._planned.mask_into(out)
        return out.view(bool)

    def tiles(self, head=0, batch=0):
        """[rows, cols] bool: the tiles kept for a query head. Error if the plan has no tiles."""
        rows, cols, _, _ = self._planned.tile_shape()
        out = np.zeros((rows, cols), np.uint8)
        self._planned.tiles_into(batch, head, out)
        return out.view(bool)

    @property
    def tile_size(self):
        """(queries, keys) of a tile. Error if the plan has no tiles."""
        return tuple(self._planned.tile_shape()[2:])

    def svg(self, head=0, size=360):
        """A picture of a query head of batch item 0, `size` pixels wide: queries down, keys across."""
        return self._planned.svg(head, size)

    def attend(self, q, k, v, *, threads=0, impl=None, strict=False, dtype=None, column_mass=False):
        """Runs the plan on tensors of its sizes; arguments and result as in `regard.attend`."""
        arrays = _arrays.inputs(q, k, v)
        return run(self._planned, arrays, q, threads, impl, strict, dtype, column_mass)

    def __str__(self):
        return self._planned.describe()

    def __repr__(self):
        return f"<regard.Plan {self.method or 'from JSON'}, density {self.density:.4f}>"

    def __eq__(self, other):
        return isinstance(other, Plan) and self.json() == other.json()

    def __hash__(self):
        return self._planned.hash()

    def _repr_svg_(self):
        return self.svg()

    def _repr_html_(self):
        import html
        heads = range(min(8, self.problem["heads"]))
        pictures = "".join(
            f"<figure style='margin:0 12px 12px 0'>{self.svg(h, 200)}"
            f"<figcaption>head {h}, density {self.head_density[h]:.4f}</figcaption></figure>"
            for h in heads)
        return (f"<pre>{html.escape(str(self))}</pre>"
                f"<div style='display:flex;flex-wrap:wrap'>{pictures}</div>")


def outputs(arrays, dtype, column_mass, like=None):
    """Results for inputs of any rank: out, lse, column mass or None."""
    q, k, v = (a.shape for a in arrays)
    exact = "f64" if dtype == "f64" else "f32"
    shapes = [([*q[:-1], v[-1]], dtype), ([*q[:-1], 1], exact)]
    if column_mass:
        shapes.append(([*q[:-2], 1, k[-2]], exact))
    made = [_arrays.result(shape, kind, like, arrays) for shape, kind in shapes]
    return made if column_mass else [*made, None]


def run(planned, arrays, q, threads, impl, strict, dtype, column_mass):
    name = _arrays.dtype_name(dtype) if dtype is not None else arrays[0].dtype
    out, lse, mass = outputs(arrays, name, column_mass, q)
    trace = planned.attend(*arrays, out.array, lse.array, mass and mass.array, threads, impl or "",
                           strict, _arrays.stream_of(q, arrays))
    for reason in trace["fallbacks"]:
        warnings.warn(f"ran on {trace['implementation']}: {reason}", FallbackWarning, stacklevel=4)
    lse.memory = lse.memory[..., 0]
    result = out.like(q), lse.like(q)
    if column_mass:
        mass.memory = mass.memory[..., 0, :]
        result += (mass.like(q),)
    return result
