"""Times the Hopper kernels beside cuDNN in one process on the same inputs (random normal).
Usage: python3 sm90_bench.py LIBRARY WHAT... ; WHAT: d64 d128 d256 tiles band small, NAME=forced"""
import ctypes
import os
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from sm90_lib import Library, bench, compare, graph, lists

libs = [Library(p) for p in sys.argv[1].split(",")]
lib = libs[0]
what = sys.argv[2:]
variants = os.environ.get("VARIANTS", "").split(",")
setenv, unsetenv = ctypes.CDLL(None).setenv, ctypes.CDLL(None).unsetenv
print(torch.cuda.get_device_name(), torch.__version__, torch.backends.cudnn.version())


def cudnn(q, k, v, causal):
    def run():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION), torch.no_grad():
            F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])
    return run


try:
    import fa3_fwd_interface as fa3
except ImportError:
    fa3 = None


def rivals(q, k, v, causal):
    """cuDNN, and FlashAttention-3 where its package is there (on [B, N, H, D] copies)."""
    out = [("cuDNN", lambda: cudnn(q, k, v, causal))]
    if fa3:
        x = [t.transpose(1, 2).contiguous() for t in (q, k, v)]
        out.append(("FA3", lambda: lambda: fa3.flash_attn_func(*x, causal=causal)))
    return out


def rand(b, h, n, d, dtype=torch.bfloat16):
    return torch.randn(b, h, n, d, device="cuda", dtype=dtype)


def rates(named, flops, **more):
    """A line of TFLOP/s; a function that refuses is shown with its reason."""
    line, good = {}, []
    for name, make in named:
        try:
            fn = make()
            fn()
            good.append((name, fn))
        except Exception as e:
            line[name] = str(e)[:60]
    for (name, _), t in zip(good, compare([f for _, f in good], **more)):
        line[name] = f"{flops / t / 1e12:4.0f}"
    return "  ".join(f"{name} {line[name]}" for name, _ in named)


def own(forced, *a, **k):
    """Every library and every forced instance, as (name, maker)."""
    out = []
    for i, x in enumerate(libs):
        for f in forced or [None]:
            name = (f or "own") + (f"@{i}" if len(libs) > 1 else "")
            for env in variants:
                out.append((name + env, lambda x=x, f=f, env=env: with_env(env, x.call(*a, force=f, **k)[0])))
    return out


def with_env(env, fn):
    """env: ':NAME=VALUE:...', set around every call (experiments)."""
    pairs = [p.split("=") for p in env.split(":") if p]
    if not pairs:
        return fn
    def run():
        for n, v in pairs:
            setenv(n.encode(), v.encode(), 1)
        fn()
        for n, _ in pairs:
            unsetenv(n.encode())
    return run


def dense(d, lens, forced):
    h = 2048 // d
    for s in lens:
        b = max(1, 16384 // s)
        q, k, v = (rand(b, h, s, d) for _ in range(3))
        for causal in (False, True):
            flops = 4 * b * h * s * s * d * (0.5 if causal else 1)
            named = rivals(q, k, v, causal) + own(forced, q, k, v, causal=causal)
            print(f"d{d} {s} b{b} {'causal' if causal else 'full  '}: {rates(named, flops)}", flush=True)


def tiles(s, d, sizes, densities, h=16, forced=None):
    q, k, v = (rand(1, h, s, d) for _ in range(3))
    for bq, bk in sizes:
        row = f"tiles {bq}x{bk} d{d} {s}:"
        for density in densities:
            rows, cols = s // bq, s // bk
            n = max(1, int(cols * density))
            keep = torch.zeros(1, h, rows, cols, dtype=torch.bool)
            keep.scatter_(3, torch.rand(1, h, rows, cols).argsort(-1)[..., :n], True)
            t = lists(keep, bq, bk)
            row += f"  {density}: " + rates(own(forced, q, k, v, tiles=t), 4 * h * s * s * d * n / cols)
        print(row, flush=True)


def band(s, d, forced, h=16):
    q, k, v = (rand(1, h, s, d) for _ in range(3))
    for w, sink in ((1024, 0), (1024, 64), (4096, 0)):
        pairs = w * s - w * (w - 1) / 2
        row = f"band {w} sink {sink} d{d} {s}:"
        row += " " + rates(own(forced, q, k, v, causal=True, left=w - 1, sink=sink), 4 * h * d * pairs)
        print(row, flush=True)


def small(d, forced):
    for b, h, kv, s in ((1, 16, 16, 512), (32, 16, 16, 512), (1, 32, 8, 512), (4, 16, 16, 1024)):
        q, k, v = rand(b, h, s, d), rand(b, kv, s, d), rand(b, kv, s, d)
        for causal in (False, True):
            flops = 4 * b * h * s * s * d * (0.5 if causal else 1)
            named = rivals(q, k, v, causal) + own(forced, q, k, v, causal=causal)
            line = []
            for name, make in named:
                try:
                    line.append(f"{name} {flops / graph(make()) / 1e12:4.0f}")
                except Exception as e:
                    line.append(f"{name} {str(e)[:60]}")
            print(f"small d{d} b{b} h{h}:{kv} {s} {'causal' if causal else 'full  '}: {'  '.join(line)}",
                  flush=True)


for w in what:
    name, _, forced = w.partition("=")
    forced = forced.split(",") if forced else None
    try:
        if name == "gemm":
            a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
            print(f"gemm {2 * 8192 ** 3 / bench(lambda: a @ b) / 1e12:.0f} TFLOP/s")
        elif name.startswith("tiles"):
            for s in (16384, 32768):
                tiles(s, int(name[5:] or 128), ((128, 128), (128, 64), (64, 64)),
                      (1.0, 0.5, 0.25, 0.1, 0.05), forced=forced)
        elif name.startswith("band"):
            band(32768, int(name[4:] or 128), forced)
        elif name.startswith("small"):
            small(int(name[5:] or 128), forced)
        else:
            dense(int(name[1:].split("-")[0]),
                  [int(x) for x in name.split("-")[1:]] or [4096, 16384, 32768], forced)
    except Exception as e:
        print(name, type(e).__name__, str(e)[:200], flush=True)
