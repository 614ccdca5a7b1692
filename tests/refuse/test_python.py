"""What the package refuses, and what odd numbers do."""
import warnings

import numpy as np
import pytest

import regard


def refuses(*saying, call=regard.attend, q=(1, 4, 64, 32), k=(1, 2, 96, 32), v=(1, 2, 96, 16),
            **keywords):
    x = [np.ones(s, np.float32) if isinstance(s, tuple) else s for s in (q, k, v)]
    with pytest.raises(regard.Error) as e:
        call(*x, **keywords)
    text = str(e.value)
    assert text and "\n" not in text
    for s in saying:
        assert s in text, text


@pytest.mark.parametrize("call", [regard.attend, regard.plan, regard.explain])
def test_shapes(call):
    refuses("[1, 4]", call=call, q=(1, 4))
    refuses("5 axes", call=call, q=(1, 1, 4, 64, 32))
    refuses("[4, 64, 32]", call=call, q=(4, 64, 32))  # ranks differ
    refuses("4", "3", call=call, k=(1, 3, 96, 32), v=(1, 3, 96, 16))
    refuses("96", "95", call=call, v=(1, 2, 95, 16))
    refuses("32", "31", call=call, k=(1, 2, 96, 31))
    refuses("2", call=call, k=(2, 2, 96, 32))
    refuses("2", "1", call=call, v=(1, 1, 96, 16))
    for name in "qkv":
        shape = {"q": (1, 4, 0, 32), "k": (1, 2, 0, 32), "v": (1, 2, 96, 0)}[name]
        refuses(call=call, **{name: shape})


@pytest.mark.parametrize("call", [regard.attend, regard.plan, regard.explain])
def test_numeric(call):
    refuses("'fp4'", "f32, bf16, int8", call=call, numeric="fp4")


@pytest.mark.parametrize("call", [regard.attend, regard.plan, regard.explain])
def test_types(call):
    refuses("q", "list", call=call, q=[1.0, 2.0])
    refuses("q", "NoneType", call=call, q=None)
    refuses("k", "complex64", call=call, k=np.ones((1, 2, 96, 32), np.complex64))
    refuses("v", "int64", call=call, v=np.ones((1, 2, 96, 16), np.int64))
    refuses("q", ">f4", call=call, q=np.ones((1, 4, 64, 32), ">f4"))
    refuses("i32", call=call, q=np.ones((1, 4, 64, 32), np.int32))


class OnGpu:
    def __dlpack__(self, **keywords):
        raise BufferError("not on the CPU")

    def __dlpack_device__(self):
        return (2, 0)


def test_foreign_arrays_that_cannot_be_read():
    refuses("q", q=OnGpu())


def test_methods():
    refuses("'xatention'", "xattention", method="xatention")
    refuses("'treshold'", "threshold", method="xattention", treshold=0.5)
    refuses("threshold=3", "0 to 2", method="xattention", threshold=3)
    refuses("threshold=nan", method="xattention", threshold=float("nan"))
    refuses("block", "whole", method="xattention", block=64.5)
    refuses("block", method="xattention", block="large")
    refuses("block", method="xattention", block=2**70)
    refuses("forced", "paper", method="xattention", forced="perhaps")
    refuses("block", method="xattention", block=np.ones(3, np.float32))
    refuses("mask", "NoneType", method="block_mask", mask=None)
    refuses("mask", method="block_mask")
    refuses("none.npy", method="block_mask", mask="@none.npy")
    refuses("not both", method="xattention:block=64", threshold=0.5)
    with pytest.raises(regard.Error, match="xattention"):
        regard.describe("xattentoin")


def test_options():
    refuses("threads", "4096", threads=-1)
    refuses("threads", "4096", threads=10**6)
    refuses("'gpu'", "cpu, ref", impl="gpu")
    refuses("float8", "bf16", dtype="float8")
    refuses("scale", "nan", scale=float("nan"))
    refuses("scale", "inf", scale=float("inf"))
    refuses("int32", dtype=np.int32)
    assert issubclass(regard.Error, ValueError)


def test_plans_from_text():
    for text in ("", "{", "[]", "{}", "null", '{"problem": 3}', '{"branches": []}'):
        with pytest.raises(regard.Error) as e:
            regard.Plan.from_json(text)
        assert "\n" not in str(e.value)


def test_planted():
    for keywords in ({"name": "haystack"}, {"name": "noise", "heads": 0},
                     {"name": "noise", "heads": 4, "kv_heads": 3}, {"name": "noise", "tokens": -1}):
        with pytest.raises(regard.Error):
            regard.planted(**keywords)


# --- NaN and infinity: defined, and the same in both implementations ---------------------------------

def odd(what, value, row=150):
    r = np.random.default_rng(0)
    x = {n: r.standard_normal((1, 2, 200, 64)).astype(np.float32) for n in "qkv"}
    clean = [x[n].copy() for n in "qkv"]
    x[what][0, 1, row, 3] = value
    return clean, [x[n] for n in "qkv"]


@pytest.mark.parametrize("impl", ["cpu", "ref"])
@pytest.mark.parametrize("method", ["dense", "a_shape", "vertical_slash", "xattention"])
@pytest.mark.parametrize("what", "qkv")
def test_nan_stays_in_the_rows_that_read_it(what, method, impl):
    clean, x = odd(what, np.nan)
    plan = regard.plan(*clean, method=method)
    out0, lse0 = plan.attend(*clean, impl=impl)
    out, lse = plan.attend(*x, impl=impl)
    reads = np.arange(200) == 150 if what == "q" else plan.mask()[0, 1, :, 150]
    assert reads.any() and not reads.all()
    lost = ~np.isfinite(out[0, 1]).all(-1)
    assert np.array_equal(lost, reads)
    assert np.array_equal(out[0, 0], out0[0, 0]) and np.array_equal(out[0, 1, ~reads],
                                                                    out0[0, 1, ~reads])
    # v does not enter the lse; q and k do.
    assert np.isnan(lse[0, 1]).sum() == (0 if what == "v" else reads.sum())
    # The method itself, planning on the NaN, neither fails nor hangs.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        regard.attend(*x, method=method, impl=impl)


@pytest.mark.parametrize("impl", ["cpu", "ref"])
@pytest.mark.parametrize("what", "qk")
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinite_logit_takes_all(what, value, impl):
    clean, x = odd(what, value)
    out0, lse0 = regard.attend(*clean, impl=impl)
    out, lse = regard.attend(*x, impl=impl)
    q, k, v = (a[0, 1].astype(np.float64) for a in x)
    for i in range(200):
        with np.errstate(invalid="ignore"):
            s = (q[i] @ k[: i + 1].T)
        s = np.where(np.isnan(s), 0, s)
        top = s == np.inf
        if what == "k" and i >= 150 and not top.any():
            assert np.isfinite(lse[0, 1, i])  # -inf: the key is as if it were not there
        if top.any():
            assert lse[0, 1, i] == np.inf
            assert np.abs(out[0, 1, i] - v[: i + 1][top].mean(0)).max() < 1e-5
        elif i < 150:
            assert np.array_equal(out[0, 1, i], out0[0, 1, i])
    assert np.array_equal(out[0, 0], out0[0, 0])


@pytest.mark.parametrize("impl", ["cpu", "ref"])
def test_huge_numbers_do_not_overflow(impl):
    """Logits of 1e30: exp of the difference only."""
    x = regard.planted("noise", heads=2, tokens=100)
    out, lse = regard.attend(x.q * 1e15, x.k * 1e15, x.v, impl=impl)
    assert np.isfinite(out).all() and np.isfinite(lse).all()
    assert np.abs(out).max() <= np.abs(x.v).max()
