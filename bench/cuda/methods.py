"""Whole methods (estimate, select, lower, upload, attend) on one GPU beside dense attention.

Usage: methods.py [TOKENS [profile]]. With `profile`: the kernels of each method's planning, microseconds. Inputs are planted: the best mask is known to be sparse. Prints Markdown. Dense
is the faster of Regard's own and cuDNN's. `plan` and `ready` are the host's clock after a warm-up, `attend`
the device's; `total` is one clock around all three, waiting for the result, as dense is timed too.
"""
import re
import statistics
import sys
import time

import torch
from torch.nn.attention import SDPBackend

from regard_c import Runner
from rivals import sdpa

TOKENS = int(sys.argv[1]) if len(sys.argv) > 1 else 32768
HEADS, KV_HEADS, D, SEGMENT = 32, 8, 128, 64
METHODS = ["xattention:threshold=0.9", "xattention:threshold=0.9,stride=8", "block_sparse:top_k=32,block=128",
           "vertical_slash:vertical_size=1000,slash_size=2000", "vertical_slash:vertical_size=500,slash_size=700",
           "flexprefill:gamma=0.9"]


def planted(kind, n):
    """q, k, v whose attention lies on a band of segments, on a few heavy blocks, or on the first tokens."""
    g = torch.Generator("cuda").manual_seed(7)
    normal = lambda *s: torch.randn(*s, device="cuda", generator=g)
    codes = normal(KV_HEADS, n // SEGMENT, D).sign()
    peak = 4 + 0.6931472 * n.bit_length()
    size = (peak / D**0.5) ** 0.5
    segment = torch.arange(n, device="cuda") // SEGMENT
    q, k = 0.5 * normal(HEADS, n, D), 0.5 * normal(KV_HEADS, n, D)
    if kind == "band":
        own = codes[:, segment]
        k += size * own
        q += size * (own + codes[:, (segment - 1).clamp(min=0)]).repeat_interleave(HEADS // KV_HEADS, 0)
    else:
        rank = torch.rand(KV_HEADS, n // SEGMENT, device="cuda", generator=g).argsort().argsort()
        strength = 1 - 1.5 * torch.log(rank + 1.0) / peak
        if kind == "sinks":
            strength = (torch.arange(n // SEGMENT, device="cuda") == 0).float().expand_as(rank)
        k += size * codes[:, :1] * strength[:, segment, None]
        q += size * codes[:, :1].repeat_interleave(HEADS // KV_HEADS, 0)
    v = normal(KV_HEADS, n, D)
    return [x[None].to(torch.bfloat16).contiguous() for x in (q, k, v)]


def clock(fn, rounds=7):
    times = []
    for n in range(rounds + 2):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        fn()
        torch.cuda.synchronize()
        if n >= 2:
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def device_seconds(fn, rounds=7):
    times = []
    for n in range(rounds + 2):
        a, b = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        a.record()
        fn()
        b.record()
        b.synchronize()
        times.append(a.elapsed_time(b) * 1e-3)
    return statistics.median(times[2:])


def profile():
    q, k, v = planted("band", TOKENS)
    for method in METHODS:
        Runner(q, k, v, method=method)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as p:
            Runner(q, k, v, method=method)
            torch.cuda.synchronize()
        print(method)
        for e in p.key_averages():
            if e.device_time > 0:
                name = re.findall(r"\w+_kernel", e.key) or [e.key]
                print(f"  {name[0][:40]:40} {e.count:3} x {e.device_time:9.1f} us")


def main():
    print(f"{torch.cuda.get_device_name()}, {TOKENS} tokens, {HEADS}:{KV_HEADS} heads of {D}, bf16, causal; ms")
    print("\n| input | method | density | plan | ready | attend (by) | total | dense | times dense |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind in ("band", "heavy blocks", "sinks"):
        q, k, v = planted(kind, TOKENS)
        kk, vv = (x.repeat_interleave(HEADS // KV_HEADS, 1) for x in (k, v))
        dense = {}
        for impl in ("cuda_sm90", None):
            try:
                own = Runner(q, k, v, impl=impl, causal=1)
                dense[own.name] = clock(own)
                break
            except RuntimeError as e:
                print("dense", impl, e)
        dense["cuDNN"] = clock(sdpa(q, kk, vv, SDPBackend.CUDNN_ATTENTION, is_causal=True))
        best = min(dense.values())
        print(f"| {kind} | dense: " + ", ".join(f"{n} {s * 1e3:.2f}" for n, s in dense.items()) + " |||||||")
        for method in METHODS:
            for impl in ("cuda_sm90", None):
                seconds = []

                def whole():  # the plan goes as well: one that stays would make the next one's memory new
                    run = Runner(q, k, v, impl=impl, method=method)
                    run()
                    seconds.append(run.seconds)
                try:
                    whole()
                except RuntimeError as e:
                    if impl is None:
                        print(f"| {kind} | {method} | {e} |||||||")
                    continue
                total = clock(whole)
                run = Runner(q, k, v, impl=impl, method=method, wants_density=True)
                density, attend = run.density, device_seconds(run)
                plan, ready = (statistics.median(x[s] for x in seconds[3:]) for s in ("plan", "ready"))
                print(f"| {kind} | {method} | {density:.3f} | {plan * 1e3:.2f} | {ready * 1e3:.2f} | "
                      f"{attend * 1e3:.2f} ({run.name}) | {total * 1e3:.2f} | {best * 1e3:.2f} | "
                      f"{best / total:.2f} |", flush=True)
                break


if __name__ == "__main__":
    profile() if "profile" in sys.argv else main()
