"""Plans through the package: masks, tiles, pictures, JSON."""
import xml.etree.ElementTree

import numpy as np
import pytest

import regard

METHODS = ["a_shape", "dense", "vertical_slash", "xattention"]


@pytest.fixture(scope="module")
def mixed():
    return regard.planted("mixed", heads=4, kv_heads=2, tokens=384, dim=32)


@pytest.mark.parametrize("method", METHODS)
def test_mask_is_what_runs(mixed, oracle, method):
    plan = regard.plan(*mixed, method=method)
    mask = plan.mask()
    assert mask.dtype == bool and mask.shape == (1, 4, 384, 384)
    assert not np.triu(mask[0, 0], 1).any()
    want, want_lse, _ = oracle(*mixed, mask)
    for out, lse in (plan.attend(*mixed), regard.attend(*mixed, method=method)):
        assert np.abs(out - want).max() < 1e-5
        assert np.abs(lse - want_lse).max() < 1e-4
    exact = np.tril(np.ones((384, 384), bool)).sum()
    assert plan.density == pytest.approx(mask.sum() / (4 * exact))
    assert plan.head_density == pytest.approx(mask.sum((0, 2, 3)) / exact)


def test_not_causal(mixed):
    assert regard.plan(*mixed, causal=False).mask().all()


def test_tiles(mixed):
    plan = regard.plan(*mixed, method="xattention", block=64, threshold=0.6)
    assert plan.tile_size == (64, 64)
    mask = plan.mask()
    for head in range(4):
        tiles = plan.tiles(head)
        assert tiles.shape == (6, 6)
        from_mask = mask[0, head].reshape(6, 64, 6, 64).any((1, 3))
        assert np.array_equal(tiles, from_mask)
    with pytest.raises(regard.Error, match="no tiles"):
        regard.plan(*mixed).tiles()
    with pytest.raises(regard.Error, match="head 4"):
        plan.tiles(4)


def test_a_strip_of_queries(mixed):
    q, k, v = mixed
    plan = regard.plan(q[:, :, -100:], k, v, method="a_shape")
    full = regard.plan(q, k, v, method="a_shape")
    assert plan.problem["offset"] == 284
    assert np.array_equal(plan.mask(), full.mask()[:, :, -100:])


@pytest.mark.parametrize("method", METHODS)
def test_json_round_trip(mixed, method):
    plan = regard.plan(*mixed, method=method)
    again = regard.Plan.from_json(plan.json())
    assert again == plan and hash(again) == hash(plan)
    assert np.array_equal(again.mask(), plan.mask())
    assert np.array_equal(again.attend(*mixed)[0], plan.attend(*mixed)[0])


def test_plan_for_other_sizes_is_refused(mixed):
    q, k, v = mixed
    with pytest.raises(regard.Error, match="the plan is for"):
        regard.plan(q, k, v).attend(q, k[:, :, :100], v[:, :, :100])


def test_pictures(mixed):
    plan = regard.plan(*mixed, method="xattention")
    root = xml.etree.ElementTree.fromstring(plan.svg(1, 200))
    assert root.tag.endswith("svg") and root.get("width") == "200"
    page = plan._repr_html_()
    assert page.count("<svg") == 4 and "density" in page
    xml.etree.ElementTree.fromstring(f"<body>{page}</body>")
    assert plan._repr_svg_().startswith("<svg")
    assert "xattention" in repr(plan) and "tiles" in str(plan)
    with pytest.raises(regard.Error, match="head 9"):
        plan.svg(9)


def test_cost_and_times(mixed):
    plan = regard.plan(*mixed, method="xattention")
    assert plan.cost["pairs"] <= plan.cost["tile_pairs"]
    assert sum(plan.cost["head_pairs"]) == pytest.approx(plan.cost["pairs"])
    assert plan.seconds and all(s >= 0 for s in plan.seconds.values())
