"""Arrays in and out: numpy, any CPU tensor that speaks DLPack (torch, jax, ...), and torch's CUDA
tensors, all without a copy."""
import sys

import numpy as np

from . import _regard

Error = _regard.Error

_NAMES = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16", "int32": "i32"}
_ACCEPTED = "float64, float32, float16, bfloat16"


def borrow(name, x):
    """x as a `_regard.Array` that shares its memory. Error names what came."""
    if isinstance(x, _regard.Array):
        return x
    if isinstance(x, np.ndarray):
        dtype = _NAMES.get(x.dtype.name)
        if dtype is None or not x.dtype.isnative:
            raise Error(f"{name} is an array of {x.dtype}; accepted: {_ACCEPTED}")
        if x.ndim > 4:
            raise Error(f"{name} has {x.ndim} axes; accepted: up to 4")
        # The address, not DLPack: numpy's DLPack refuses unaligned and odd strides.
        return _regard.array_from_address(x.__array_interface__["data"][0], dtype, x.shape,
                                          x.strides, x)
    if not hasattr(x, "__dlpack__"):
        raise Error(f"{name} is a {type(x).__name__}; accepted: a numpy array or a tensor with "
                    "__dlpack__")
    if getattr(x, "requires_grad", False):
        x = x.detach()  # Regard has no backward pass; torch lends no memory of a leaf otherwise
    return _regard.array_from_dlpack(name, x)


def inputs(q, k, v):
    """q, k, v as Arrays of one rank, 3 or 4."""
    arrays = [borrow(name, x) for name, x in zip("qkv", (q, k, v))]
    shapes = [a.shape for a in arrays]
    if any(len(s) != len(shapes[0]) for s in shapes) or len(shapes[0]) not in (3, 4):
        raise Error("q, k and v must all be [B, H, N, D] or all [H, N, D]; got shapes "
                    + ", ".join(str(s) for s in shapes))
    if any(0 in s for s in shapes):
        raise Error("q, k and v must not be empty; got shapes " + ", ".join(str(s) for s in shapes))
    return arrays


def dtype_name(dtype):
    """'f32', numpy.float32, torch.float32, ... -> 'f32'"""
    text = str(getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or dtype)
    text = text.split(".")[-1]
    name = _NAMES.get(text, text)
    if name not in ("f64", "f32", "f16", "bf16"):
        raise Error(f"dtype {dtype!r}; accepted: f64, f32, f16, bf16, or the framework's name")
    return name


class TorchResult:
    """A result in a torch tensor's own kind of memory: for CUDA tensors."""

    def __init__(self, shape, dtype, like):
        torch = sys.modules["torch"]
        kind = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16,
                "bf16": torch.bfloat16}
        self.memory = torch.empty(shape, dtype=kind[dtype], device=like.device)
        self.array = _regard.array_from_dlpack("out", self.memory)

    def like(self, _):
        return self.memory


def result(shape, dtype, q, arrays):
    """Memory for a result where the inputs lie."""
    if not arrays[0].cuda:
        return Result(shape, dtype)
    if type(q).__module__.split(".")[0] != "torch":
        raise Error(f"q is a {type(q).__name__} on a GPU; accepted there: torch tensors")
    return TorchResult(shape, dtype, q)


def stream_of(q, arrays):
    """The handle of the CUDA stream that q's framework works on; 0, the default one, if not torch."""
    if not arrays[0].cuda or type(q).__module__.split(".")[0] != "torch":
        return 0
    return sys.modules["torch"].cuda.current_stream(q.device).cuda_stream


class Result:
    """Memory for a result, and the way back to the caller's kind of array."""

    def __init__(self, shape, dtype):
        plain = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": np.uint16}
        self.dtype = dtype
        self.memory = np.empty(shape, plain[dtype])
        self.array = _regard.array_from_address(self.memory.ctypes.data, dtype, shape,
                                                self.memory.strides, self.memory)

    def like(self, x):
        """As numpy for numpy, else as a tensor of x's framework."""
        if isinstance(x, np.ndarray):
            if self.dtype != "bf16":
                return self.memory
            return self.memory.view(x.dtype) if x.dtype.name == "bfloat16" else self._exported()
        module = sys.modules.get(type(x).__module__.split(".")[0])
        take = getattr(module, "from_dlpack", None)
        if take is None and hasattr(x, "__array_namespace__"):
            take = getattr(x.__array_namespace__(), "from_dlpack", None)
        if take is not None:
            return take(self._exported() if self.dtype == "bf16" else self.memory)
        return self._exported() if self.dtype == "bf16" else self.memory

    def _exported(self):
        return _regard.as_bfloat16(self.memory, self.memory.ctypes.data, self.memory.shape)


def parameters(params):
    """Keyword arguments as the module takes them: numbers, text, Arrays."""
    out = {}
    for name, x in params.items():
        if isinstance(x, np.generic):
            x = x.item()
        if isinstance(x, (list, tuple)):
            x = np.asarray(x)
        if isinstance(x, np.ndarray):
            if x.dtype == bool or np.issubdtype(x.dtype, np.integer):
                if x.size and (x.max() > 2**31 - 1 or x.min() < -2**31):
                    raise Error(f"{name}: integers must fit into 32 bits")
                x = x.astype(np.int32)
        if not isinstance(x, (bool, int, float, str)):
            x = borrow(name, x)
        out[name] = x
    return out
