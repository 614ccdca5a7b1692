"""Regard (through its C ABI) beside cuDNN, FlexAttention and FlashAttention-3 and -4 in one process.

The last two take part where their packages can be imported (fa3-fwd; flash-attn-4 with its needs).
Prints Markdown tables. Times are medians of CUDA-graph replays (Flex: events). The contestants take
turns, another one first in every round, and the card rests before each turn: it throttles by power,
and would charge one contestant for the one before it. Inputs are normal random numbers in bf16. Each
result is compared with cuDNN's or a masked float32 product before it is timed.
"""
import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from regard_c import ALL, BAND, COLUMNS, TILES, Runner

PARTS = ("decode", "dense", "small", "sparse", "band")
args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
args.add_argument("part", nargs="*", choices=(*PARTS, []), help="all, if none is named")
args.add_argument("--quick", action="store_true", help="a few shapes of each part")
args.add_argument("--lengths", type=lambda s: [int(n) for n in s.split(",")], help="of the dense part")
args.add_argument("--baseline", action="store_true", help="cuda_sm80 beside cuda_sm90, in the dense part")
args = args.parse_args(None if __name__ == "__main__" else [])
QUICK = args.quick
dev = "cuda"


def graph_of(fn, runs):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        fn()
    torch.cuda.synchronize()
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        for _ in range(runs):
            fn()
    return lambda: g.replay(), runs


def take_turns(contestants, rounds=11, rest_s=0.02):
    """Median seconds of one call, by name; the first rounds warm up."""
    times = {name: [] for name in contestants}
    order = list(contestants.items())
    for n in range(rounds + 2):
        order.append(order.pop(0))
        for name, (fn, runs) in order:
            time.sleep(rest_s)
            fn()
            a, b = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            a.record()
            fn()
            b.record()
            b.synchronize()
            if n >= 2:
                times[name].append(a.elapsed_time(b) * 1e-3 / runs)
    return {name: statistics.median(t) for name, t in times.items()}


def sdpa(q, k, v, backend, **how):
    def run():
        with sdpa_kernel(backend), torch.no_grad():
            return F.scaled_dot_product_attention(q, k, v, **how)
    return run


try:
    from fa3_fwd_interface import flash_attn_func as flash3
except ImportError:
    flash3 = None
try:
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch
    from flash_attn.cute.interface import flash_attn_func as flash4
except ImportError:
    flash4 = None


def flash(q, k, v, **how):
    """FlashAttention on [B, N, H, D] copies, by name."""
    x = [t.transpose(1, 2).contiguous() for t in (q, k, v)]
    named = {"FlashAttention-3": flash3, "FlashAttention-4": flash4}
    return {name: (lambda f=f: f(*x, **how)) for name, f in named.items() if f}


def randn(*shape):
    return torch.randn(*shape, device=dev, dtype=torch.bfloat16)


def close(name, got, want):
    off = (got.float() - want.float()).norm() / want.float().norm()
    if not off < 1e-2:
        print(f"WRONG: {name} is off by {off:.3g}", flush=True)


def contest(row, ours, rivals, runs, per_second, unit):
    contestants = {}
    for name, fn in {**ours, **rivals}.items():
        try:
            contestants[name] = graph_of(fn, runs)
        except Exception as e:  # a rival that cannot take a shape is told apart, not hidden
            print(f"| {row} | {name} | {str(e).splitlines()[0][:80]} | | |", flush=True)
    t = take_turns(contestants)
    best = min((t[n] for n in rivals if n in t), default=None)
    for name, s in t.items():
        ratio = f"{best / s:.2f}" if best and name in ours else ""
        print(f"| {row} | {name} | {s * 1e6:.1f} | {per_second(s):.0f} {unit} | {ratio} |", flush=True)
    return t


def head(title):
    print(f"\n{title}\n\n| work | who | us | rate | times the best rival |\n|---|---|---|---|---|")


def decode():
    head("Decode, D128, bf16, in a CUDA graph; KV of 33 MB stays in L2")
    for b, hq, hk, n in [(1, 32, 8, 8192), (1, 32, 8, 131072), (1, 32, 8, 524288), (16, 32, 8, 8192),
                         (16, 32, 8, 32768), (1, 64, 8, 32768)][:3 if QUICK else None]:
        q, k, v = randn(b, hq, 1, 128), randn(b, hk, n, 128), randn(b, hk, n, 128)
        cudnn = sdpa(q, k, v, SDPBackend.CUDNN_ATTENTION, enable_gqa=True)
        ours = {"regard": Runner(q, k, v, cover=ALL)}
        want = cudnn()
        keep = []
        for page in (16, 64):
            if n > 131072:
                break
            pages = b * n // page
            order = torch.randperm(pages, device=dev).int()
            pools = []
            for x in (k, v):
                x = x.reshape(b, hk, n // page, page, 128).transpose(1, 2).reshape(pages, hk, page, 128)
                pool = torch.empty_like(x)
                pool[order.long()] = x
                pools.append(pool)
            keep.append(pools)
            ours[f"regard, pages of {page}"] = Runner(q, *pools, nk=n, cover=ALL,
                                                      pages=order.view(b, 1, 1, -1))
        if n <= 131072 and b == 1:
            start = torch.arange(hk + 1, dtype=torch.int64) * n
            index = torch.arange(n, dtype=torch.int32).repeat(hk)
            ours["regard, single key columns"] = Runner(q, k, v, cover=COLUMNS, lists=(start, index),
                                                        list_heads=hk, bq=1, bk=1)
        for name, run in ours.items():
            close(name, run(), want)
        bytes_ = 4 * b * hk * n * 128
        contest(f"b{b} {hq}:{hk} {n}", ours, {"cuDNN": cudnn}, 10, lambda s: bytes_ / s / 1e9, "GB/s")
        del ours, keep


def forward(row, b, heads, n, d, causal, runs=2):
    hq, hk = heads
    q, k, v = randn(b, hq, n, d), randn(b, hk, n, d), randn(b, hk, n, d)
    cudnn = sdpa(q, k, v, SDPBackend.CUDNN_ATTENTION, is_causal=causal, enable_gqa=hq != hk)
    ours = {}
    for impl in ("cuda_sm90", "cuda_sm80") if args.baseline else ("cuda_sm90",):
        run = Runner(q, k, v, impl=impl, cover=ALL, causal=int(causal))
        close(impl, run(), cudnn())
        ours[impl] = run
    flops = 4 * b * hq * n * n * d * (0.5 if causal else 1)
    rivals = {"cuDNN": cudnn, **flash(q, k, v, causal=causal)}
    contest(f"{row}{' causal' if causal else ''}", ours, rivals, runs, lambda s: flops / s / 1e12,
            "TFLOP/s")


def dense():
    head("Forward, bf16, batch x length 16K tokens, heads x size 2048")
    for d in (64, 128, 256):
        for n in args.lengths or ((512, 4096) if QUICK else (512, 4096, 16384, 32768)):
            for causal in (False, True):
                forward(f"D{d} {n}", max(1, 16384 // n), (2048 // d,) * 2, n, d, causal)


def small():
    head("Forward, bf16, D128, works of a few steps: 20 calls a CUDA graph")
    for b, hq, hk, n in [(1, 16, 16, 512), (1, 32, 8, 512), (32, 16, 16, 512), (4, 16, 16, 1024)]:
        for causal in (False, True):
            forward(f"b{b} {hq}:{hk} {n}", b, (hq, hk), n, 128, causal, runs=20)


def sparse():
    head("Tiles, a list per head, D128, 16 heads, bf16: TFLOP/s on the kept tiles")
    from torch.nn.attention.flex_attention import BlockMask, flex_attention
    flex = torch.compile(flex_attention)
    for n in (16384,) if QUICK else (16384, 32768):
        q, k, v = (randn(1, 16, n, 128) for _ in range(3))
        for density in (1, .5, .25, .1, .05):
            nb = n // 128
            kept = max(1, int(nb * density))
            order = torch.rand(1, 16, nb, nb).argsort(-1)
            order[..., :kept] = order[..., :kept].sort(-1).values
            index = order[..., :kept].int().contiguous()
            start = torch.arange(16 * nb + 1, dtype=torch.int64) * kept
            run = Runner(q, k, v, cover=TILES, lists=(start, index), list_heads=16, bq=128, bk=128)
            num = torch.full((1, 16, nb), kept, dtype=torch.int32, device=dev)
            order = order.int().to(dev)
            mask = BlockMask.from_kv_blocks(torch.zeros_like(num), order, num, order, BLOCK_SIZE=128)
            with torch.no_grad():
                close("tiles", run(), flex(q, k, v, block_mask=mask))
                rivals = {"Flex": (lambda: flex(q, k, v, block_mask=mask), 1)}
                if flash4:
                    none = torch.zeros_like(num)
                    blocks = BlockSparseTensorsTorch(
                        mask_block_cnt=none, mask_block_idx=torch.zeros_like(order),
                        full_block_cnt=num, full_block_idx=order, block_size=(128, 128))
                    (four,) = [f for name, f in flash(q, k, v, block_sparse_tensors=blocks).items()
                               if name.endswith("4")]
                    four()
                    rivals["FlashAttention-4"] = (four, 1)
                t = take_turns({run.name: graph_of(run, 2), **rivals})
            flops = 4 * 16 * n * n * 128 * kept / nb
            best = min(t[name] for name in rivals)
            for name, s in t.items():
                print(f"| {n} density {density} | {name} | {s * 1e6:.0f} | {flops / s / 1e12:.0f} TFLOP/s "
                      f"| {best / s:.2f} |", flush=True)


def band():
    head("Sliding window, causal, D128, 16 heads, 32K")
    n = 32768
    q, k, v = (randn(1, 16, n, 128) for _ in range(3))
    for w in (1024, 4096):
        run = Runner(q, k, v, cover=BAND, left=w - 1, right=0, sink=4, causal=1)
        t = take_turns({run.name: graph_of(run, 2)})
        pairs = w * n - w * w / 2
        for name, s in t.items():
            print(f"| window {w} sink 4 | {name} | {s * 1e6:.0f} | "
                  f"{4 * 16 * 128 * pairs / s / 1e12:.0f} TFLOP/s | |", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, "
          f"cuDNN {torch.backends.cudnn.version()}")
    for part in args.part or PARTS:
        try:
            globals()[part]()
        except Exception as e:
            print(f"{part} stopped: {e}", flush=True)
