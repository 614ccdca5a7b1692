"""Bad input: one line on stderr, a non-zero exit, no trace, no crash, nothing half-written."""
import json
import os
import pathlib
import struct
import subprocess

import numpy as np
import pytest

import regard


def program():
    built = pathlib.Path(regard.__file__).resolve().parents[2] / "bin"
    return str(pathlib.Path(os.environ.get("REGARD_BIN", built)).resolve() / "regard")


class Cli:
    def __init__(self, folder):
        self.folder = folder

    def run(self, *args, **options):
        options.setdefault("stdout", subprocess.PIPE)
        return subprocess.run([program(), *map(str, args)], cwd=self.folder, text=True, timeout=120,
                              stderr=subprocess.PIPE, **options)

    def good(self, *args):
        done = self.run(*args)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    def refuses(self, *args, saying=()):
        """Runs, expects one line that holds all of `saying`; no file may appear or change."""
        before = {f: f.stat().st_mtime_ns for f in self.folder.rglob("*")}
        done = self.run(*args)
        assert done.returncode in (1, 2), (done.returncode, done.stderr)  # not a signal
        assert done.stderr.startswith("regard: ") and done.stderr.count("\n") == 1, done.stderr
        for text in [saying] if isinstance(saying, str) else saying:
            assert text in done.stderr, done.stderr
        assert {f: f.stat().st_mtime_ns for f in self.folder.rglob("*")} == before
        return done.stderr


@pytest.fixture
def cli(tmp_path):
    return Cli(tmp_path)


_TYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "uint8": "U8"}


def write_safetensors(path, tensors):
    """The format written by its description, not by Regard."""
    header, data = {}, b""
    for name, x in tensors.items():
        header[name] = {"dtype": _TYPES[x.dtype.name], "shape": x.shape,
                        "data_offsets": [len(data), len(data) + x.nbytes]}
        data += x.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_safetensors(path):
    raw = path.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + n])
    meta = header.pop("__metadata__", {})
    types = {v: k for k, v in _TYPES.items()}
    return {name: np.frombuffer(raw[8 + n :][slice(*h["data_offsets"])],
                                types[h["dtype"]]).reshape(h["shape"])
            for name, h in header.items()}, meta


@pytest.fixture
def files(tmp_path):
    class Files:
        write = staticmethod(write_safetensors)
        read = staticmethod(read_safetensors)

        @staticmethod
        def qkv(name="qkv.safetensors", **change):
            r = np.random.default_rng(0)
            t = {"q": r.standard_normal((1, 4, 64, 32)), "k": r.standard_normal((1, 2, 96, 32)),
                 "v": r.standard_normal((1, 2, 96, 16))}
            t = {n: x.astype(np.float32) for n, x in t.items()}
            t.update(change)
            write_safetensors(tmp_path / name, {n: x for n, x in t.items() if x is not None})
            return t

    return Files
