"""regard.attend on every kind of array, against numpy in float64."""
import threading
import warnings

import numpy as np
import pytest

import regard


def close(got, want, dtype=np.float32, terms=77):
    """Within a few roundings of `terms` accumulated products of numbers of order one."""
    eps = {np.float64: 2.0**-53, np.float32: 2.0**-24, np.float16: 2.0**-11}[dtype]
    assert np.abs(np.asarray(got, np.float64) - want).max() <= 4 * eps * terms**0.5


@pytest.mark.parametrize("impl", ["cpu", "ref"])
@pytest.mark.parametrize("causal", [True, False])
def test_dense_against_numpy(qkv, oracle, lower, impl, causal):
    q, k, v = qkv()
    out, lse = regard.attend(q, k, v, causal=causal, impl=impl)
    allowed = np.broadcast_to(lower(33, 77) | (not causal), (2, 6, 33, 77))
    want, want_lse, _ = oracle(q, k, v, allowed)
    assert out.dtype == np.float32 and out.shape == (2, 6, 33, 40) and lse.shape == (2, 6, 33)
    close(out, want)
    close(lse, want_lse)


def test_scale_and_types(qkv, oracle, lower):
    for dtype in (np.float64, np.float32, np.float16):
        q, k, v = qkv(dtype=dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", regard.FallbackWarning)
            out, lse = regard.attend(q, k, v, scale=0.3)
        want, want_lse, _ = oracle(q, k, v, np.broadcast_to(lower(33, 77), (2, 6, 33, 77)), 0.3)
        assert out.dtype == dtype
        assert lse.dtype == (np.float64 if dtype == np.float64 else np.float32)
        # The fp64 path is allowed to run in fp32: close() then asks for fp32 only if a kernel did.
        close(out, want, np.float16 if dtype == np.float16 else np.float32)
        close(lse, want_lse)


def test_reference_is_exact_in_float64(qkv, oracle, lower):
    q, k, v = qkv(dtype=np.float64)
    # A scale that float32, the problem's type for it, holds exactly.
    out, lse = regard.attend(q, k, v, impl="ref", scale=0.25)
    want, want_lse, _ = oracle(q, k, v, np.broadcast_to(lower(33, 77), (2, 6, 33, 77)), 0.25)
    close(out, want, np.float64)
    close(lse, want_lse, np.float64)


def test_output_type(qkv):
    q, k, v = qkv()
    out, _ = regard.attend(q, k, v)
    half, lse = regard.attend(q, k, v, dtype=np.float16)
    assert half.dtype == np.float16 and lse.dtype == np.float32
    assert np.array_equal(half, out.astype(np.float16))
    wide, lse = regard.attend(q, k, v, dtype="f64")
    assert wide.dtype == np.float64 and lse.dtype == np.float64
    close(wide, out)


def test_three_axes(qkv):
    q, k, v = qkv(b=1)
    out, lse = regard.attend(q, k, v)
    out3, lse3, mass3 = regard.attend(q[0], k[0], v[0], column_mass=True, impl="ref")
    assert out3.shape == (6, 33, 40) and lse3.shape == (6, 33) and mass3.shape == (6, 77)
    close(out3, out[0])


def test_column_mass(qkv, oracle, lower):
    q, k, v = qkv()
    with pytest.warns(regard.FallbackWarning, match="column mass"):
        _, _, mass = regard.attend(q, k, v, column_mass=True)
    _, _, want = oracle(q, k, v, np.broadcast_to(lower(33, 77), (2, 6, 33, 77)))
    close(mass, want, terms=33)
    assert abs(mass.sum() - 2 * 6 * 33) < 1e-3


@pytest.mark.parametrize("impl", ["cpu", "ref"])
def test_any_strides_and_alignment(qkv, impl):
    q, k, v = qkv()
    want = regard.attend(q, k, v, impl=impl)

    def transposed(x):  # [B, N, H, D] seen as [B, H, N, D]
        return np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)

    def channels_first(x):
        return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)

    def unaligned(x):
        raw = np.zeros(x.nbytes + 1, np.uint8)
        y = raw[1:].view(np.uint8)[: x.nbytes].view(x.dtype).reshape(x.shape)
        y[...] = x
        assert y.__array_interface__["data"][0] % 2 == 1
        return y

    def reversed_(x):
        return np.ascontiguousarray(x[:, :, ::-1])[:, :, ::-1]

    def odd_bytes(x):  # strides that are no multiple of the element
        rows = np.zeros(x.shape[:-1] + (x.shape[-1] * x.itemsize + 3,), np.uint8)
        y = np.ndarray(x.shape, x.dtype, rows, 0, rows.strides[:-1] + (x.itemsize,))
        y[...] = x
        return y

    def locked(x):
        y = x.copy()
        y.flags.writeable = False
        return y

    for change in (transposed, channels_first, unaligned, reversed_, odd_bytes, locked):
        x = [change(a) for a in (q, k, v)]
        assert all(np.array_equal(a, b) for a, b in zip(x, (q, k, v)))
        got = regard.attend(*x, impl=impl)
        assert all(np.array_equal(g, w) for g, w in zip(got, want)), change.__name__


def test_broadcast_batch(qkv):
    q, k, v = qkv()
    one = np.broadcast_to(k[:1], k.shape)
    out, _ = regard.attend(q, one, v)
    assert np.array_equal(out, regard.attend(q, one.copy(), v)[0])


class Lent:
    """What another framework's tensor looks like from outside: DLPack and nothing else."""

    def __init__(self, source):
        self._source = source

    def __dlpack__(self, **keywords):
        return self._source.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self._source.__dlpack_device__()


def to_bfloat16(x):
    """float32 -> (bfloat16 as DLPack, the same numbers as float32)"""
    bits = (x.view(np.uint32) >> 16).astype(np.uint16)  # truncated: exact bfloat16 numbers
    lent = regard._regard.as_bfloat16(bits, bits.ctypes.data, bits.shape)
    return Lent(lent), (bits.astype(np.uint32) << 16).view(np.float32)


def test_dlpack(qkv):
    q, k, v = qkv()
    want = regard.attend(q, k, v)
    got = regard.attend(*(Lent(x) for x in (q, k, v)))
    assert all(np.array_equal(g, w) for g, w in zip(got, want))
    t = [np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (q, k, v)]
    assert np.array_equal(regard.attend(*(Lent(x) for x in t))[0], want[0])


def test_bfloat16(qkv):
    lent, plain = zip(*(to_bfloat16(x) for x in qkv()))
    want, want_lse = regard.attend(*plain)
    out, lse = regard.attend(*lent, dtype="f32")
    close(out, want)
    close(lse, want_lse)
    out, _ = regard.attend(*lent)  # comes back as bfloat16, over DLPack
    a = regard._arrays.borrow("out", out)
    assert a.dtype == "bf16" and a.shape == [2, 6, 33, 40]
    # Going in again proves that what came out is readable.
    again, _ = regard.attend(out, out, out, dtype="f32")
    assert np.isfinite(again).all()


def test_parameters_by_name_and_in_text():
    x = regard.planted("mixed", heads=2, tokens=512)
    a, _ = regard.attend(*x, method="xattention", threshold=0.7, block=64)
    b, _ = regard.attend(*x, method="xattention:threshold=0.7,block=64")
    assert np.array_equal(a, b)
    c, _ = regard.attend(*x, method="xattention", threshold=np.float64(0.7), block=np.int64(64))
    assert np.array_equal(a, c)


@pytest.mark.parametrize("method", ["a_shape", "dense", "vertical_slash", "xattention"])
def test_threads_do_not_change_bits(method):
    x = regard.planted("mixed", heads=4, tokens=640)
    one = regard.attend(*x, method=method, threads=1)
    for threads in (2, 3, 7):
        more = regard.attend(*x, method=method, threads=threads)
        assert all(np.array_equal(a, b) for a, b in zip(one, more))


def test_calls_from_several_threads():
    x = regard.planted("band", heads=2, tokens=512)
    want, _ = regard.attend(*x)
    got = [None] * 4

    def work(i):
        got[i] = regard.attend(*x, threads=1)[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(np.array_equal(g, want) for g in got)


def test_the_lock_is_released():
    """Another Python thread runs while attention does."""
    x = regard.planted("noise", heads=4, tokens=2048)
    ticks, stop = [0], threading.Event()

    def tick():
        while not stop.is_set():
            ticks[0] += 1

    t = threading.Thread(target=tick)
    t.start()
    before = ticks[0]
    regard.attend(*x, impl="ref", threads=1)
    during = ticks[0] - before
    stop.set()
    t.join()
    assert during > 1000


def test_queries_that_read_nothing():
    r = np.random.default_rng(0)
    q, k, v = (r.standard_normal((1, 1, n, 8)).astype(np.float32) for n in (5, 3, 3))
    for impl in ("cpu", "ref"):  # queries 0 and 1 sit before the first key
        out, lse = regard.attend(q, k, v, impl=impl)
        assert (out[0, 0, :2] == 0).all() and (lse[0, 0, :2] == -np.inf).all()
        assert np.isfinite(lse[0, 0, 2:]).all()


def test_explain_and_strict(qkv):
    q, k, v = qkv()
    found = regard.explain(q, k, v)
    assert [c["name"] for c in found] == ["cuda_sm90", "cuda_sm80", "cpu", "ref"]
    assert found[0]["refusal"] and found[1]["refusal"] and found[2]["chosen"]
    assert regard.explain(q, k, v, impl="ref")[3]["chosen"]
    mass = regard.explain(q, k, v, column_mass=True)
    assert mass[3]["chosen"] and "column mass" in mass[2]["refusal"]
    with pytest.raises(regard.Error, match="strict"):
        regard.attend(q, k, v, column_mass=True, strict=True)


def test_catalogue():
    names = regard.methods()
    assert names == sorted(names) and "dense" in names
    for name in names:
        record = regard.describe(name)
        assert record["name"] == name
        for p in record["params"]:
            assert p["type"] in ("bool", "int", "float", "string", "tensor") and p["doc"]
            if p["type"] in ("int", "float"):
                assert p["min"] is None or p["min"] <= p["default"]  # None: no bound
                assert p["max"] is None or p["default"] <= p["max"]
