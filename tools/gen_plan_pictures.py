#!/usr/bin/env python3
"""Draws every method's plan on the planted generators: one small PNG a method, and plans.json.

    PYTHONPATH=build/python tools/gen_plan_pictures.py [--out docs/images/plans] [METHOD ...]

A panel is one head, queries down and keys across, 4096 tokens in cells of 32 x 32; blue is what the
plan reads exactly, darker for a larger share of the cell, sand what it reads as means, by features
or in some other summary, grey what it leaves out, white what causality hides. Methods stand at
their defaults; where those read everything, or where learned tensors are needed, at what the tests
use (tests/oracles), which plans.json says.
"""
import argparse
import json
import pathlib
import struct
import sys
import zlib

import numpy as np
import regard

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "catalogue"), str(ROOT / "tests" / "oracles")]
import catalogue  # noqa: E402

KINDS = ["sinks", "band", "grid", "clusters", "needle", "heavy_tail"]
TOKENS, CELL, GAP = 4096, 32, 6
# 0: hidden, 1: left out, 2: summarised, 3 to 15: read, by share; 0 also between panels
PALETTE = [(255, 255, 255), (225, 226, 232), (240, 211, 150)] + [
    tuple(round(a + (b - a) * s / 12) for a, b in zip((180, 197, 222), (19, 62, 124)))
    for s in range(13)]


def png(pixels):
    """A 4-bit palette image of [rows, cols] numbers below 16."""
    rows, cols = pixels.shape
    packed = pixels.astype(np.uint8)
    packed = np.pad(packed, ((0, 0), (0, cols % 2)))
    packed = packed[:, ::2] << 4 | packed[:, 1::2]
    raw = b"".join(b"\0" + row.tobytes() for row in packed)

    def chunk(kind, data):
        return (struct.pack(">I", len(data)) + kind + data
                + struct.pack(">I", zlib.crc32(kind + data)))
    header = struct.pack(">IIBBBBB", cols, rows, 4, 3, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"PLTE", bytes(x for colour in PALETTE for x in colour))
            + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def cells(mask):
    """[N, N] -> sums over cells."""
    n = mask.shape[0] // CELL
    return mask.reshape(n, CELL, n, CELL).sum((1, 3), dtype=np.int64)


def exact_mask(plan):
    """Pairs of the branches that weigh raw keys by their logits."""
    whole = json.loads(plan.json())

    def exact(branch):
        averages = 0 < branch["score"]["softcap"] < 1e-6
        return branch["source"]["kind"] == "raw" and "weight" not in branch and not averages
    kept = [b for b in whole["branches"] if exact(b)]
    if len(kept) == len(whole["branches"]):
        return plan.mask()[0, 0]
    out = np.zeros((TOKENS, TOKENS), bool)
    for branch in kept:
        one = {**whole, "combine": "only", "gate": None, "branches": [branch]}
        out |= regard.Plan.from_json(json.dumps(one)).mask()[0, 0]
    return out


def panel(mask, exact):
    seen = cells(np.tri(TOKENS, dtype=bool))
    share = cells(exact) / np.maximum(seen, 1)
    level = np.where(share > 0, 3 + np.minimum(12, np.ceil(share * 13) - 1),
                     np.where(cells(mask) > 0, 2, 1))
    return np.where(seen > 0, level, 0).astype(int)


def spec(params):
    return ",".join(f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}"
                    for k, v in params.items() if np.ndim(v) == 0)


def plans(name, params, inputs):
    return [regard.plan(*x, method=name, **params) for x in inputs]


def choose(name, inputs):
    """The parameters to draw: the defaults unless they read everything everywhere."""
    q, k = inputs[0].q, inputs[0].k
    sets = catalogue.parameter_sets(name, q, k, True)
    chosen = plans(name, sets[0], inputs)
    if name in ("dense", "alibi", "softcap", "sink_bias", "block_mask") or len(sets) == 1:
        return sets[0], chosen
    if catalogue.RECORDS[name]["family"] != "hybrid" and min(p.density for p in chosen) > 0.97:
        module = catalogue.oracle(name)
        params = {**sets[1], **getattr(module, "planted", {})}
        return params, plans(name, params, inputs)
    return sets[0], chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "images" / "plans")
    parser.add_argument("methods", nargs="*")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    index_file = arguments.out / "plans.json"
    index = json.loads(index_file.read_text()) if index_file.exists() else {}
    inputs = [regard.planted(kind, heads=1, tokens=TOKENS, dim=64) for kind in KINDS]
    for name in arguments.methods or catalogue.NAMES:
        params, made = choose(name, inputs)
        panels = []
        for plan in made:
            panels += [panel(plan.mask()[0, 0], exact_mask(plan)),
                       np.zeros((TOKENS // CELL, GAP), int)]
        (arguments.out / f"{name}.png").write_bytes(png(np.concatenate(panels[:-1], 1)))
        index[name] = {"parameters": spec(params),
                       "density": {k: round(p.density, 4) for k, p in zip(KINDS, made)}}
        print(name, index[name], flush=True)
    index = {n: index[n] for n in sorted(index) if n in catalogue.NAMES}
    index_file.write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
