"""Regard's C ABI (include/regard/regard.h) on torch's CUDA tensors, by ctypes: no copy, no linking."""
import ctypes as c
import os
import pathlib
import time

import torch

HERE = pathlib.Path(__file__).resolve().parent
LIBRARY = os.environ.get("REGARD_LIBRARY", HERE.parents[1] / "build/bin/libregard.so")
DTYPE = {torch.float32: 1, torch.float16: 2, torch.bfloat16: 3, torch.int32: 4}
ALL, BAND, TILES, COLUMNS = range(4)


class View(c.Structure):
    _fields_ = [("data", c.c_void_p), ("dtype", c.c_int32), ("device", c.c_int32),
                ("size", c.c_int64 * 4), ("stride", c.c_int64 * 4)]

    @classmethod
    def of(cls, x):
        b = x.element_size()
        return cls(x.data_ptr(), DTYPE[x.dtype], int(x.is_cuda), tuple(x.shape),
                   tuple(s * b for s in x.stride()))


class Tensors(c.Structure):
    _fields_ = [("struct_size", c.c_size_t)] + [(n, View) for n in "q k v out lse pages".split()]


class Problem(c.Structure):
    _fields_ = [("struct_size", c.c_size_t)] + [
        (n, c.c_int64) for n in "batch heads kv_heads nq nk dk dv".split()] + [
        ("scale", c.c_float), ("offset", c.c_int64), ("sequences", c.c_int64),
        ("cu_q", c.c_void_p), ("cu_k", c.c_void_p)]


class Branch(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("cover", c.c_int32), ("causal", c.c_int32),
                ("left", c.c_int64), ("right", c.c_int64), ("sink", c.c_int64),
                ("list_batch", c.c_int64), ("list_heads", c.c_int64), ("bq", c.c_int32),
                ("bk", c.c_int32), ("start", c.c_void_p), ("index", c.c_void_p),
                ("pooled", c.c_int32), ("softcap", c.c_float), ("alibi", c.c_void_p),
                ("bias", View), ("bias_scale", c.c_void_p), ("key_bias", View),
                ("mask", c.c_void_p), ("mask_batch", c.c_int64), ("mask_heads", c.c_int64),
                ("norm", c.c_int32), ("sink_logit", c.c_void_p), ("shift", c.c_float)]


class Options(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("threads", c.c_int32), ("strict", c.c_int32),
                ("impl", c.c_char_p)]


def _load():
    lib = c.CDLL(str(LIBRARY))
    lib.regard_error.restype = lib.regard_runner_implementation.restype = c.c_char_p
    lib.regard_runner_workspace.restype = c.c_int64
    for f in (lib.regard_runner_workspace, lib.regard_runner_implementation,
              lib.regard_runner_free, lib.regard_plan_free):
        f.argtypes = [c.c_void_p]
    lib.regard_runner_run.argtypes = [c.c_void_p, c.c_void_p, c.c_void_p, c.c_int64, c.c_void_p]
    return lib


class Runner:
    """A plan made ready on q, k, v [B, H, N, D]: of one branch, or of a method of the catalogue, causal
    ("xattention:threshold=0.9"). Calling it runs on torch's stream. `seconds`: what making it took."""

    lib = None

    def __init__(self, q, k, v, *, pages=None, nk=None, impl=None, lists=None,
                 method=None, wants_density=False, **fields):
        if Runner.lib is None:
            Runner.lib = _load()
        lib = self.lib
        nk = nk or k.shape[2]
        problem, branch, tensors, options = Problem(), Branch(), Tensors(), Options()
        lib.regard_problem_init(c.byref(problem))
        lib.regard_branch_init(c.byref(branch))
        lib.regard_tensors_init(c.byref(tensors))
        lib.regard_options_init(c.byref(options))
        problem.batch, problem.heads, problem.nq, problem.dk = q.shape
        problem.kv_heads, problem.nk, problem.dv = k.shape[1], nk, v.shape[3]
        for name, x in fields.items():
            setattr(branch, name, x)
        if lists:  # (start, index) as CPU tensors of int64 and int32
            branch.start, branch.index = (x.data_ptr() for x in lists)
        self.out = torch.empty((*q.shape[:3], v.shape[3]), dtype=q.dtype, device=q.device)
        self.lse = torch.empty((*q.shape[:3], 1), dtype=torch.float32, device=q.device)
        for name, x in (("q", q), ("k", k), ("v", v), ("out", self.out), ("lse", self.lse),
                        ("pages", pages)):
            if x is not None:
                setattr(tensors, name, View.of(x))
        if impl:
            options.impl = impl.encode()
        plan, self.runner = c.c_void_p(), c.c_void_p()
        begin = time.perf_counter()
        if method:
            self._check(lib.regard_plan_method(method.encode(), c.byref(tensors), 1,
                                               c.c_float(float("nan")), c.byref(plan)))
        else:
            self._check(lib.regard_plan_create(c.byref(problem), c.byref(branch), 1, 0, None,
                                               c.byref(plan)))
        planned = time.perf_counter()
        try:
            self._check(lib.regard_runner_create(plan, c.byref(tensors), c.byref(options),
                                                 c.byref(self.runner)))
            self.seconds = {"plan": planned - begin, "ready": time.perf_counter() - planned}
            density = c.c_double()
            if method and wants_density:
                self._check(lib.regard_plan_density(plan, c.byref(density)))
            self.density = density.value
        finally:
            lib.regard_plan_free(plan)
        self.bytes = lib.regard_runner_workspace(self.runner)
        self.workspace = torch.empty(max(1, self.bytes), dtype=torch.uint8, device=q.device)
        self.tensors, self.keep = tensors, (q, k, v, pages)
        self.name = lib.regard_runner_implementation(self.runner).decode()

    def _check(self, status):
        if status:
            raise RuntimeError(self.lib.regard_error().decode())

    def __call__(self):
        self._check(self.lib.regard_runner_run(self.runner, c.addressof(self.tensors),
                                               self.workspace.data_ptr(), self.bytes,
                                               torch.cuda.current_stream().cuda_stream))
        return self.out

    def __del__(self):
        if getattr(self, "runner", None):
            self.lib.regard_runner_free(self.runner)
