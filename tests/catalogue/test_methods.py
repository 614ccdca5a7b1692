"""What every method of the catalogue owes; no test here knows a method by name."""
import functools
import json

import numpy as np
import pytest
import regard
from catalogue import (NAMES, PROBLEMS, RECORDS, assert_attention, attend_oracle, causalities,
                       naive_at, needs_tensors, normal, oracle, parameter_sets, twin_of)

CASES = [(n, p, c) for n in NAMES for p in PROBLEMS for c in causalities(n)]
IDS = [f"{n}-{p.replace(' ', '_')}-{'causal' if c else 'full'}" for n, p, c in CASES]
every_case = pytest.mark.parametrize("name,problem,causal", CASES, ids=IDS)
every_method = pytest.mark.parametrize("name", NAMES)


@every_case
def test_keeps_what_the_paper_says(name, problem, causal):
    q, k, v = normal(problem)
    for params in parameter_sets(name, q, k, causal):
        plan = regard.plan(q, k, v, method=name, causal=causal, **params)
        want = oracle(name).kept(q, k, v, causal=causal, **params)
        wrong = np.argwhere(plan.mask() != want)
        assert len(wrong) == 0, f"{params}: {len(wrong)} pairs differ, first {wrong[0]}"


@every_case
def test_output_is_attention_over_them(name, problem, causal):
    q, k, v = normal(problem, seed=1)
    for params in parameter_sets(name, q, k, causal):
        got = regard.attend(q, k, v, method=name, causal=causal, **params)
        exact = attend_oracle(name, q, k, v, causal, params)
        with naive_at(np.float32):
            naive = attend_oracle(name, q, k, v, causal, params)
        naive = naive[0].astype(q.dtype), naive[1]
        assert_attention(got, exact, naive, v)


@every_case
def test_plan_is_causal_saved_and_counted(name, problem, causal):
    q, k, v = normal(problem, seed=2)
    n, m = q.shape[2], k.shape[2]
    allowed = np.tri(n, m, m - n, dtype=bool) if causal else np.ones((n, m), bool)
    for params in parameter_sets(name, q, k, causal):
        plan = regard.plan(q, k, v, method=name, causal=causal, **params)
        mask = plan.mask()
        assert not (mask & ~allowed).any()
        assert regard.Plan.from_json(plan.json()) == plan
        if reads_each_pair_once(plan):
            share = mask.sum() / (allowed.sum() * mask[..., 0, 0].size)
            assert plan.density == pytest.approx(share)


def reads_each_pair_once(plan):
    """Branches that are finished apart may read a pair twice; a pooled key is one for many."""
    branches = json.loads(plan.json())
    raw = all(b["source"]["kind"] == "raw" for b in branches["branches"])
    return raw and (branches["combine"] != "gated" or len(branches["branches"]) == 1)


@every_case
def test_twin_is_exact_attention(name, problem, causal):
    q, k, v = normal(problem, seed=3)
    twin = twin_of(name, q, k, causal)
    if twin is None:
        assert name == "dense" or not RECORDS[name]["twin"]
        pytest.skip("the method is its own twin")
    got = regard.attend(q, k, v, method=twin[0], causal=causal, **twin[1])
    if json.loads(regard.plan(q, k, v, method=twin[0], causal=causal, **twin[1]).json())[
            "combine"] == "gated":  # the lse of branches that are finished apart is that of all
        got = got[0], regard.attend(q, k, v, causal=causal)[1]
    exact = attend_oracle("dense", q, k, v, causal, {})
    with naive_at(np.float32):
        naive = attend_oracle("dense", q, k, v, causal, {})
    assert_attention(got, exact, (naive[0].astype(q.dtype), naive[1]), v)


@every_method
def test_threads_change_nothing(name):
    q, k, v = normal("ragged", seed=4)
    for params in parameter_sets(name, q, k, True):
        plans = [regard.plan(q, k, v, method=name, threads=t, **params) for t in (1, 2, 3)]
        runs = [regard.attend(q, k, v, method=name, threads=t, **params) for t in (1, 2, 3)]
        assert plans[0] == plans[1] == plans[2]
        for run in runs[1:]:
            assert all(np.array_equal(a, b) for a, b in zip(run, runs[0]))


@every_method
def test_batch_items_and_groups_stand_alone(name):
    q, k, v = normal("ragged", seed=5)
    sets = parameter_sets(name, q, k, True)
    params = sets[getattr(oracle(name), "alone", 0 if needs_tensors(name) else -1)]
    mask = regard.plan(q, k, v, method=name, **params).mask()
    group = q.shape[1] // k.shape[1]
    if not getattr(oracle(name), "by_group", False):  # the paper lets a group choose together
        apart = regard.plan(q, np.repeat(k, group, 1), np.repeat(v, group, 1), method=name,
                            **params)
        assert np.array_equal(apart.mask(), mask)
    for b in range(q.shape[0]):
        one = regard.plan(q[b : b + 1], k[b : b + 1], v[b : b + 1], method=name, **params)
        assert np.array_equal(one.mask()[0], mask[b])


def shapes(params):
    return {key: np.shape(value) for key, value in params.items()}


@every_method
def test_a_strip_is_the_end_of_the_whole(name):
    """The last queries alone, from a tile's edge on, keep what they keep among all queries."""
    if getattr(oracle(name), "rows_compete", False):
        pytest.skip("rows of one call compete for one budget")
    rng = np.random.default_rng(6)
    q, k, v = (rng.normal(0, 1.5, (1, h, 410, 32)).astype(np.float32) for h in (2, 1, 1))
    for n, params in enumerate(parameter_sets(name, q, k, True)):
        whole = regard.plan(q, k, v, method=name, **params).mask()
        for begin in (128, 256):
            if shapes(params) != shapes(parameter_sets(name, q[:, :, begin:], k, True)[n]):
                pytest.skip("its tensor has the problem's shape")
            strip = regard.plan(q[:, :, begin:], k, v, method=name, **params).mask()
            assert np.array_equal(strip, whole[:, :, begin:])


@every_method
def test_prefix_where_claimed(name):
    if not RECORDS[name]["prefix"]:
        pytest.skip("not claimed")
    q, k, v = normal("whole", seed=7)
    params = parameter_sets(name, q, k, True)[0]
    before = regard.attend(q, k, v, method=name, **params)
    rng = np.random.default_rng(8)
    for cut in (1, 64, 100, 255):
        changed = [x.copy() for x in (q, k, v)]
        for x in changed:
            x[:, :, cut:] = rng.normal(0, 9, x[:, :, cut:].shape)
        after = regard.attend(*changed, method=name, **params)
        assert all(np.array_equal(a[:, :, :cut], b[:, :, :cut]) for a, b in zip(after, before))


@every_method
@pytest.mark.parametrize("kind", sorted(regard.planted_kinds()))
def test_recall_on_planted_structure(name, kind):
    """No method keeps more of the mass than the best mask with as many keys in every row. One that
    looks at the data keeps nearly all of the mass, and few pairs, where it lies in a band or on
    first tokens."""
    n, module = 768, oracle(name)
    late = slice(n // 2, None)  # early rows are dense for everybody
    made, p = planted(kind, n)
    sets = parameter_sets(name, made.q, made.k, True)
    params = {**sets[min(1, len(sets) - 1)], **getattr(module, "planted", {})}
    kept = regard.plan(*made, method=name, **params).mask()[:, :, late]
    recall, share = (p * kept).sum() / p.sum(), kept.sum() / np.tri(n, dtype=bool)[late].sum() / 2
    best = np.insert(np.sort(p)[..., ::-1].cumsum(-1), 0, 0, -1)
    best = np.take_along_axis(best, kept.sum(-1)[..., None], -1).sum() / p.sum()
    assert recall <= best + 1e-6
    if RECORDS[name]["family"] == "dynamic" and not getattr(module, "blind", False):
        if kind in getattr(module, "sees", ("band", "sinks")):
            assert recall > 0.85 and share < 0.35


@functools.cache
def planted(kind, n):
    """Made input and the exact probabilities of its second half."""
    made = regard.planted(kind, heads=2, kv_heads=1, tokens=n, dim=64)
    lse = np.float64(regard.attend(*made, method="dense")[1])
    logits = np.einsum("bhid,bhjd->bhij", np.float64(made.q), np.repeat(made.k, 2, 1)) / 8
    p = np.where(np.tri(n, dtype=bool), np.exp(logits - lse[..., None]), 0)
    return made, p[:, :, n // 2 :]
