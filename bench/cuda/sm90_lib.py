"""The Hopper kernels on torch tensors: ctypes over the C entry of sm90_shim.cc."""
import ctypes as C
import time

import torch


class Tensor(C.Structure):
    _fields_ = [("data", C.c_void_p), ("batch", C.c_int64), ("head", C.c_int64), ("row", C.c_int64)]


class Params(C.Structure):
    _fields_ = [
        ("type", C.c_int32), ("out_type", C.c_int32),
        ("q", Tensor), ("k", Tensor), ("v", Tensor), ("out", Tensor),
        ("lse", C.c_void_p), ("partial", C.c_bool),
        ("batch", C.c_int32), ("heads", C.c_int32), ("kv_heads", C.c_int32),
        ("nq", C.c_int64), ("nk", C.c_int64),
        ("dk", C.c_int32), ("dv", C.c_int32), ("scale", C.c_float),
        ("offset", C.c_int64), ("left", C.c_int64), ("right", C.c_int64), ("sink", C.c_int64),
        ("cu_q", C.c_void_p), ("cu_k", C.c_void_p), ("sequences", C.c_int32), ("max_nq", C.c_int64),
        ("start", C.c_void_p), ("index", C.c_void_p),
        ("list_batch", C.c_int64), ("list_heads", C.c_int64), ("list_rows", C.c_int64),
        ("bq", C.c_int32), ("bk", C.c_int32), ("loose", C.c_bool), ("key_start", C.c_void_p), ("key_index", C.c_void_p),
        ("softcap", C.c_float), ("alibi", C.c_void_p), ("sink_logit", C.c_void_p),
        ("force", C.c_char_p),
        ("workspace", C.c_void_p), ("sms", C.c_int32), ("counters", C.c_void_p),
    ]


TYPES = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}


class Library:
    def __init__(self, path):
        self.c = C.CDLL(path)
        assert self.c.regard_sm90_params_size() == C.sizeof(Params), "Params differs from params.h"
        self.c.regard_sm90_workspace.restype = C.c_size_t
        self.sms = torch.cuda.get_device_properties(0).multi_processor_count

    def call(self, q, k, v, scale=None, causal=False, left=-1, right=-1, sink=0, offset=None,
             cu_q=None, cu_k=None, max_nq=0, tiles=None, softcap=0.0, alibi=None, sink_logit=None,
             out=None, lse=None, out_type=None, force=None):
        """q, k, v [B, H, N, D] (any strides); returns a function that runs, and (out, lse)."""
        b, h, nq, dk = q.shape
        nk, dv = k.shape[2], v.shape[3]
        if out is None:
            out = torch.full((b, h, nq, dv), float("nan"), dtype=out_type or q.dtype, device=q.device)
        if lse is None:
            lse = torch.full((b, h, nq), float("nan"), dtype=torch.float32, device=q.device)
        t = lambda x: Tensor(x.data_ptr(), x.stride(0), x.stride(1), x.stride(2))
        ptr = lambda x: 0 if x is None else x.data_ptr()
        p = Params(type=TYPES[q.dtype], out_type=TYPES[out.dtype], q=t(q), k=t(k), v=t(v), out=t(out),
                   lse=lse.data_ptr(), batch=b, heads=h, kv_heads=k.shape[1], nq=nq, nk=nk, dk=dk,
                   dv=dv, scale=dk ** -0.5 if scale is None else scale,
                   offset=nk - nq if offset is None else offset, left=left,
                   right=0 if causal else right, sink=sink, softcap=softcap, alibi=ptr(alibi),
                   sink_logit=ptr(sink_logit), cu_q=ptr(cu_q), cu_k=ptr(cu_k),
                   sequences=0 if cu_q is None else len(cu_q) - 1, max_nq=max_nq,
                   force=force.encode() if force else None, sms=self.sms)
        if tiles is not None:  # (start, index, list_batch, list_heads, rows, bq, bk)
            start, index, p.list_batch, p.list_heads, p.list_rows, p.bq, p.bk = tiles
            p.start, p.index = start.data_ptr(), index.data_ptr()
        work = torch.zeros(max(16, self.c.regard_sm90_workspace(C.byref(p))), dtype=torch.uint8,
                           device=q.device)
        p.workspace = work.data_ptr()
        keep = (work, q, k, v, out, lse, cu_q, cu_k, tiles, alibi, sink_logit, p)
        error = C.create_string_buffer(256)

        def run(_=keep):
            s = torch.cuda.current_stream().cuda_stream
            if self.c.regard_sm90_forward(C.byref(p), C.c_void_p(s), error):
                raise RuntimeError(error.value.decode())
        return run, out, lse


def lists(keep, bq, bk, boundary=None):
    """keep, boundary: bool [B, H, rows, cols] on the CPU. Index lists as in regard/tiles.h."""
    b, h, rows, cols = keep.shape
    count = keep.reshape(-1, cols).sum(1)
    start = torch.zeros(len(count) + 1, dtype=torch.int64)
    start[1:] = count.cumsum(0)
    index = keep.reshape(-1, cols).nonzero()[:, 1].to(torch.int64)
    if boundary is not None:
        index = index + (boundary.reshape(-1, cols)[keep.reshape(-1, cols)].to(torch.int64) << 31)
    index = torch.where(index >= 2 ** 31, index - 2 ** 32, index).to(torch.int32)
    if len(index) == 0:
        index = torch.zeros(1, dtype=torch.int32)
    return start.cuda(), index.cuda(), b, h, rows, bq, bk


def bench(fn, n=15, warm=3):
    """Median seconds of one call, by events; inputs stay where they are (L2 as the call leaves it)."""
    for _ in range(warm):
        fn()
    torch.cuda.synchronize()
    times = []
    for _ in range(n):
        a, b = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        a.record()
        fn()
        b.record()
        torch.cuda.synchronize()
        times.append(a.elapsed_time(b))
    times.sort()
    return times[len(times) // 2] * 1e-3


def graph(fn, calls=20, n=15):
    """Median seconds of one call among `calls` in a CUDA graph."""
    fn()
    torch.cuda.synchronize()
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        for _ in range(calls):
            fn()
    return bench(g.replay, n) / calls


def compare(fns, rounds=3, n=6, warm=2, rest_s=0.06):
    """Median seconds of a call of each function. They take turns, and the card rests before each
    turn: it throttles by power, and would charge one function for the one before it."""
    times = [[] for _ in fns]
    for fn in fns:
        fn()
    for _ in range(rounds):
        for fn, out in zip(fns, times):
            torch.cuda.synchronize()
            time.sleep(rest_s)
            for _ in range(warm):
                fn()
            events = [torch.cuda.Event(enable_timing=True) for _ in range(n + 1)]
            events[0].record()
            for e in events[1:]:
                fn()
                e.record()
            torch.cuda.synchronize()
            out += [a.elapsed_time(b) for a, b in zip(events, events[1:])]
    return [sorted(t)[len(t) // 2] * 1e-3 for t in times]
