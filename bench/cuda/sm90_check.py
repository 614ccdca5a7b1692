"""Checks the Hopper kernels against fp64 on the same inputs: error at most twice a naive kernel's.
Usage: python3 sm90_check.py LIBRARY [quick]"""
import random
import sys

import torch

from sm90_lib import Library, lists

lib = Library(sys.argv[1])
quick = len(sys.argv) > 2
torch.manual_seed(1)
random.seed(1)
bad = done = 0


def allowed(nq, nk, off, left, right, sink):
    i = torch.arange(nq, device="cuda")[:, None] + off
    j = torch.arange(nk, device="cuda")[None]
    ok = torch.ones(nq, nk, dtype=torch.bool, device="cuda")
    if right >= 0:
        ok &= j <= i + right
    if left >= 0:
        ok &= (j >= i - left) | (j < sink)
    return ok


def reference(q, k, v, scale, ok, kind, softcap=0.0, alibi=None, off=0, sink_logit=None):
    """kind float64: exact. Else naive in that type: scores, weights and sums of products rounded."""
    g = q.shape[1] // k.shape[1]
    q, k, v = (x.to(kind) for x in (q, k.repeat_interleave(g, 1), v.repeat_interleave(g, 1)))
    s = (q @ k.transpose(-1, -2)).double() * scale
    if softcap:
        s = softcap * torch.tanh(s / softcap)
    if alibi is not None:
        i = torch.arange(q.shape[2], device="cuda")[:, None] + off
        j = torch.arange(k.shape[2], device="cuda")[None]
        s = s - alibi.double()[None, :, None, None] * (i - j).abs()
    s = s.masked_fill(~ok, float("-inf"))
    if kind != torch.float64:
        s = s.to(kind).double()
    lse = torch.logsumexp(s, -1)
    if sink_logit is not None:
        lse = torch.logaddexp(lse, sink_logit.double()[None, :, None])
    shift = lse.clone()
    shift[shift == float("-inf")] = 0
    p = torch.exp(s - shift[..., None])
    p = torch.where(ok & (s != float("-inf")), p, torch.zeros_like(p))
    return (p.to(kind) @ v).double(), lse


def judge(name, out, lse, exact, exact_lse, naive, atol=1e-5):
    global bad, done
    done += 1
    fin = torch.isfinite(exact)
    e = (out.double() - exact)[fin].abs().max().item() if fin.any() else 0.0
    n = (naive - exact)[fin].abs().nan_to_num(0).max().item() if fin.any() else 0.0
    same = torch.equal(torch.isnan(out.double()), torch.isnan(exact))
    el = (lse.double() - exact_lse)
    el = el[torch.isfinite(exact_lse)].abs().max().item() if torch.isfinite(exact_lse).any() else 0.0
    inf = torch.equal(lse.double() == float("-inf"), exact_lse == float("-inf"))
    ok = e <= 2 * n + atol and same and inf and el <= 2e-3 and e == e
    bad += not ok
    if not ok or not quick:
        print(f"{'ok ' if ok else 'BAD'} {name}: err {e:.2e} naive {n:.2e} lse {el:.1e}"
              f"{'' if same else ' NaN differ'}{'' if inf else ' -inf differ'}", flush=True)


def case(d, nq, nk, h=2, kv=2, b=1, dtype=torch.bfloat16, left=-1, right=-1, sink=0, dv=None,
         softcap=0.0, alibi=False, sink_logit=False, force=None, out_type=None, off=None, bshd=False,
         amp=1.0, spoil=None):
    dv = dv or d
    def rand(heads, n, w):
        x = torch.randn(b, n, heads, w, device="cuda", dtype=torch.float32).mul(amp).to(dtype)
        return x.transpose(1, 2) if bshd else x.transpose(1, 2).contiguous()
    q, k, v = rand(h, nq, d), rand(kv, nk, d), rand(kv, nk, dv)
    if spoil:
        spoil(q, k, v)
    off = nk - nq if off is None else off
    slopes = torch.rand(h, device="cuda") * 0.1 if alibi else None
    sinks = torch.randn(h, device="cuda") if sink_logit else None
    ok = allowed(nq, nk, off, left, right, sink)
    run, out, lse = lib.call(q, k, v, left=left, right=right, sink=sink, offset=off, softcap=softcap,
                             alibi=slopes, sink_logit=sinks, force=force, out_type=out_type)
    run()
    torch.cuda.synchronize()
    more = dict(softcap=softcap, alibi=slopes, off=off, sink_logit=sinks)
    exact, el = reference(q, k, v, d ** -0.5, ok, torch.float64, **more)
    naive, _ = reference(q, k, v, d ** -0.5, ok, dtype, **more)
    name = (f"{str(dtype)[6:]} d{d}/{dv} b{b} h{h}:{kv} {nq}x{nk} left{left} right{right} sink{sink} off{off}"
            f"{' softcap' if softcap else ''}{' alibi' if alibi else ''}{' sinklogit' if sink_logit else ''}"
            f"{' spoiled' if spoil else ''} {force or ''} {'f32' if out_type else ''}")
    judge(name, out, lse, exact, el, naive)
    if quick is False and d == 128 and nq == 129:
        run2, out2, lse2 = lib.call(q, k, v, left=left, right=right, sink=sink, offset=off,
                                    softcap=softcap, alibi=slopes, sink_logit=sinks, force=force,
                                    out_type=out_type)
        run2()
        torch.cuda.synchronize()
        assert torch.equal(out, out2) and torch.equal(lse, lse2), "two runs differ"


def tiles_case(d, nq, nk, bq, bk, h=2, kv=2, lh=2, b=1, density=0.3, causal=False, dtype=torch.bfloat16,
               empty=True, force=None):
    q, k, v = (torch.randn(b, x, n, d, device="cuda").to(dtype)
               for x, n in ((h, nq), (kv, nk), (kv, nk)))
    rows, cols = -(-nq // bq), -(-nk // bk)
    keep = torch.rand(b, lh, rows, cols) < density
    if empty:
        keep[:, :, 0] = False
    off = nk - nq
    ok = allowed(nq, nk, off, -1, 0 if causal else -1, 0).cpu()
    pad = torch.zeros(rows * bq, cols * bk, dtype=torch.bool)
    pad[:nq, :nk] = ok
    cell = pad.reshape(rows, bq, cols, bk)
    some, full = cell.any(3).any(1), cell.all(3).all(1)
    keep &= some
    t = lists(keep, bq, bk, boundary=(~full).expand_as(keep))
    token = keep.repeat_interleave(bq, 2).repeat_interleave(bk, 3)[:, :, :nq, :nk]
    token = token.repeat_interleave(h // lh, 1).cuda() & ok.cuda()
    run, out, lse = lib.call(q, k, v, causal=causal, tiles=t, force=force)
    run()
    torch.cuda.synchronize()
    exact, el = reference(q, k, v, d ** -0.5, token, torch.float64)
    naive, _ = reference(q, k, v, d ** -0.5, token, dtype)
    judge(f"tiles {bq}x{bk} d{d} h{h}:{kv}:{lh} {nq}x{nk} causal{int(causal)} {force or ''}", out, lse, exact, el,
          naive)


def ragged_case(d, lens, h=2, kv=2, causal=True, dtype=torch.bfloat16):
    nqs, nks = zip(*lens)
    cu = lambda x: torch.tensor([0] + list(x), dtype=torch.int32).cumsum(0).to(torch.int32).cuda()
    cq, ck = cu(nqs), cu(nks)
    q, k, v = (torch.randn(1, x, sum(n), d, device="cuda").to(dtype)
               for x, n in ((h, nqs), (kv, nks), (kv, nks)))
    run, out, lse = lib.call(q, k, v, causal=causal, cu_q=cq, cu_k=ck, max_nq=max(nqs))
    run()
    torch.cuda.synchronize()
    i0 = j0 = 0
    for nq, nk in lens:
        if nq == 0:
            j0 += nk
            continue
        sl = lambda x, a, n: x[:, :, a:a + n]
        ok = allowed(nq, nk, nk - nq, -1, 0 if causal else -1, 0)
        a = [sl(q, i0, nq), sl(k, j0, nk), sl(v, j0, nk), d ** -0.5, ok]
        exact, el = reference(*a, torch.float64)
        naive, _ = reference(*a, dtype)
        judge(f"ragged d{d} {nq}x{nk} causal{int(causal)}", sl(out, i0, nq), lse[:, :, i0:i0 + nq], exact, el, naive)
        i0, j0 = i0 + nq, j0 + nk


def attempt(f, *a, **k):
    global bad
    try:
        f(*a, **k)
    except Exception as e:
        bad += 1
        print("BAD", f.__name__, a, k, str(e)[:160], flush=True)
        if "CUDA" in str(e):
            raise


for d in (128, 64, 256):
    for n in (1, 63, 64, 65, 127, 128, 129, 1000, 1511):
        attempt(case, d, n, n)
        attempt(case, d, n, n, right=0)
    for nq, nk in ((1, 1000), (100, 1777), (513, 64), (300, 2048), (1024, 1024), (128, 131)):
        attempt(case, d, nq, nk, right=0)
        attempt(case, d, nq, nk)
    for h, kv in ((8, 2), (6, 2), (4, 1), (32, 4)):
        for nq in (5, 64, 200):
            attempt(case, d, nq, 700, h=h, kv=kv, right=0, b=2)
    for left, right, sink in ((100, 0, 0), (100, 0, 7), (255, 0, 130), (40, 40, 3), (0, 0, 0), (700, 0, 64)):
        attempt(case, d, 1000, 1000, left=left, right=right, sink=sink)
        attempt(case, d, 333, 1200, left=left, right=right, sink=sink, h=4, kv=2)
    attempt(case, d, 500, 500, dtype=torch.float16, right=0)
    attempt(case, d, 200, 900, dtype=torch.float16, out_type=torch.float32, right=0)
    attempt(case, d, 200, 900, bshd=True, b=3)
    attempt(case, d, 500, 500, softcap=20.0, right=0)
    attempt(case, d, 500, 500, alibi=True, right=0, h=4)
    attempt(case, d, 500, 500, sink_logit=True, right=0, h=4, kv=2)
    attempt(case, d, 500, 1500, amp=8.0)
    attempt(case, d, 700, 300, right=0)  # the first 400 rows are empty
    attempt(case, d, 6000, 70, h=16, kv=16, right=0)  # many empty tiles of rows behind one that is not
    def nan_row(q, k, v):
        q[:, :, 3] = float("nan")
    def inf_row(q, k, v):
        q[:, :, 5] = float("inf")
    attempt(case, d, 130, 300, spoil=nan_row)
    attempt(case, d, 130, 300, spoil=inf_row)
    for bq, bk in ((128, 128), (128, 64), (64, 64), (256, 128)):
        if d == 256 and bq == 64:
            continue
        for causal in (False, True):
            attempt(tiles_case, d, 1000, 1000, bq, bk, causal=causal)
            attempt(tiles_case, d, 640, 1511, bq, bk, causal=causal, h=4, kv=2, lh=2)
    attempt(tiles_case, d, 1024, 1024, 64, 64, h=4, kv=2, lh=2)
    for causal in (False, True):
        attempt(ragged_case, d, [(1, 1), (63, 100), (129, 129), (500, 777), (64, 64), (3, 900)], causal=causal)
        attempt(ragged_case, d, [(5, 60), (17, 17), (0, 40), (130, 140)], h=8, kv=2, causal=causal)
# The instances for long rows take short ones where they are asked for by name.
for d, dtype, name in [(d, dtype, f"{kind}_{shape}") for d, shape in
                       ((128, "d128_192x80"), (64, "d64_192x128"), (256, "d256_128x80"))
                       for dtype, kind in ((torch.bfloat16, "bf16"), (torch.float16, "f16"))]:
    for n in (1, 80, 129, 192, 193, 1000, 1511):
        for right in (-1, 0):
            attempt(case, d, n, n, right=right, dtype=dtype, force=name)
    for nq, nk in ((1, 1000), (513, 64), (300, 2048), (700, 300)):
        attempt(case, d, nq, nk, right=0, dtype=dtype, force=name)
    for left, right, sink in ((100, 0, 0), (255, 0, 130), (40, 40, 3)):
        attempt(case, d, 1000, 1000, left=left, right=right, sink=sink, dtype=dtype, force=name)
    attempt(case, d, 200, 700, h=8, kv=2, b=2, right=0, dtype=dtype, force=name)
    attempt(case, d, 500, 500, sink_logit=True, right=0, h=4, kv=2, dtype=dtype, force=name)
    attempt(case, d, 200, 900, out_type=torch.float32, bshd=True, b=3, dtype=dtype, force=name)
    attempt(case, d, 500, 1500, amp=8.0, dtype=dtype, force=name)
    attempt(case, d, 130, 300, spoil=nan_row, dtype=dtype, force=name)
    attempt(case, d, 130, 300, spoil=inf_row, dtype=dtype, force=name)
attempt(case, 128, 4096, 4096, h=12, kv=12)  # enough rows and keys for it to be chosen
attempt(case, 128, 8192, 8192, h=6, kv=2, right=0)
attempt(case, 64, 8200, 8200, h=4, kv=2, right=0)
for dk, dv in ((80, 80), (96, 96), (72, 72), (8, 8), (192, 128), (64, 128), (128, 64), (40, 56)):
    attempt(case, dk, 300, 500, dv=dv, right=0)
print(f"{done - bad} passed, {bad} failed", flush=True)
sys.exit(bad > 0)
