"""Inputs made to break a method: each gives a defined answer, whatever the threads."""
import numpy as np
import pytest
import regard
from catalogue import NAMES, causalities, normal, oracle, parameter_sets


def equal(q, k, v):
    for x in (q, k, v):
        x[:] = 0.5


def zero(q, k, v):
    q[:] = 0


def huge_key(q, k, v):
    k[:, :, k.shape[2] // 3] *= 1e4


def huge_logits(q, k, v):
    q *= 1e3
    k *= 1e3


def nan_key(q, k, v):
    k[:, :, k.shape[2] // 2] = np.nan


def infinite_key(q, k, v):
    k[:, :, k.shape[2] // 2, 0] = np.inf


def nan_value(q, k, v):
    v[:, :, k.shape[2] // 2] = np.nan


HOSTILE = [equal, zero, huge_key, huge_logits, nan_key, infinite_key, nan_value]


@pytest.mark.parametrize("harm", HOSTILE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_hostile_inputs_are_defined(name, harm):
    for problem in ("ragged", "strip", "one query"):
        q, k, v = normal(problem, seed=9)
        harm(q, k, v)
        for causal in causalities(name):
            for params in parameter_sets(name, q, k, causal):
                check(name, harm, causal, params, q, k, v)


def check(name, harm, causal, params, q, k, v):
    mask = regard.plan(q, k, v, method=name, causal=causal, **params).mask()
    out, lse = regard.attend(q, k, v, method=name, causal=causal, threads=1, **params)
    again = regard.attend(q, k, v, method=name, causal=causal, threads=3, **params)
    assert np.array_equal(out, again[0], equal_nan=True)
    assert np.array_equal(lse, again[1], equal_nan=True)
    bad = ~(np.isfinite(k).all(-1) & np.isfinite(v).all(-1))
    reads_bad = (mask & np.repeat(bad, q.shape[1] // k.shape[1], 1)[:, :, None]).any(-1)
    assert np.isfinite(out[~reads_bad]).all()  # other rows are as if it were not there
    if (harm is nan_value and not getattr(oracle(name), "leaves_out_values", False)
            or harm is nan_key):
        assert np.isnan(out[reads_bad]).any(-1).all()
    if harm is equal and not {"projection", "v_first"} & params.keys():  # learned maps of values
        rows = mask.any(-1)
        weight = out[rows].max() if rows.any() else 0.5
        assert np.allclose(out[rows], out[rows][..., :1]) and weight <= 0.5 + 1e-6
    assert (out[~mask.any(-1)] == 0).all()
