"""Every architecture that llama.cpp knows, with random weights, with and without the plug-in.

    archs.py BIN_DIR [--match REGEX] [--method SPEC]

Prints the normalised squared error of the logits of 128 tokens for each, and how many kinds of call the
plug-in answered; fails if one is above the bound or not finite. llama.cpp's own bound between backends
is 1e-4; that of exact attention here is 1e-6. With --method only that it runs and stays finite counts.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

BOUND = 1e-6


def logits(bin_dir, match, **env):
    """{architecture: logits}, and what was said."""
    with tempfile.NamedTemporaryFile() as out:
        run = subprocess.run([bin_dir / "test-archs", out.name, match], env=dict(os.environ, **env),
                             capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"test-archs ended with {run.returncode}:\n{run.stderr[-2000:]}")
        data = pathlib.Path(out.name).read_bytes()
    found, at = {}, 0
    while at < len(data):
        end = data.index(b"\n", at)
        name, count = data[at:end].decode().split()
        found[name] = np.frombuffer(data, np.float32, int(count), end + 1).astype(np.float64)
        at = end + 1 + 4 * int(count)
    return found, run.stderr


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin_dir", type=pathlib.Path)
    parser.add_argument("--match", default="", help="only architectures that match this regular expression")
    parser.add_argument("--method", help="a method's spec instead of exact attention")
    args = parser.parse_args()
    bin_dir = args.bin_dir.resolve()
    for name in [n for n in os.environ if n.startswith("REGARD_")] + ["GGML_BACKEND_PATH"]:
        os.environ.pop(name, None)
    want, _ = logits(bin_dir, args.match)
    how = {"REGARD_METHOD": args.method} if args.method else {}
    got, said = logits(bin_dir, args.match, REGARD_LOG="plan",
                       GGML_BACKEND_PATH=str(bin_dir / "libggml-regard.so"), **how)
    bad = sorted(want.keys() ^ got.keys())
    for name, w in want.items():
        g = got.get(name, w)
        error = ((g - w) ** 2).sum() / (w**2).sum()
        finite = np.isfinite(g).all() or not np.isfinite(w).all()
        print(f"{name:28} {error:.1e}" + ("" if finite else " not finite"))
        if not finite or (not args.method and not error <= BOUND):
            bad.append(name)
    calls = re.findall(r"^regard: layer", said, re.M)
    print(f"{len(want)} architectures, {len(calls)} kinds of call answered by the plug-in, bad: {bad or 'none'}")
    return 1 if bad or not want or not calls else 0


if __name__ == "__main__":
    sys.exit(main())
