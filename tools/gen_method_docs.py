#!/usr/bin/env python3
"""Writes docs of all methods from their records: an index and a page a method.

    PYTHONPATH=build/python tools/gen_method_docs.py --out build/docs/methods
"""
import argparse
import json
import os
import pathlib

import regard

PLANS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "images" / "plans"

NEEDS = {"causal": "causal attention", "square": "all queries at once",
         "single": "one sequence, not packed ones", "weights": "its tensor parameters"}
FAMILIES = {"exact": "Exact attention", "pattern": "Fixed patterns",
            "dynamic": "Patterns chosen from the data", "score": "Other scores and normalisers",
            "clustered": "Groups of tokens", "hybrid": "Several branches",
            "linear": "Linear attention", "quant": "Quantised attention", "decode": "Decoding",
            "cache": "Caches", "vision": "Images and video", "mixer": "Mixers"}


def cell(text):
    return str(text).replace("|", "\\|")


def accepted(p):
    if p["type"] in ("int", "float"):
        return f"{p['min']:g} to {p['max']:g}" if p.get("min") is not None else p["type"]
    if p.get("choices"):
        return ", ".join(p["choices"])
    words = {"bool": "true, false", "tensor": "`@file.npy`, `@file.safetensors#name`"}
    return words.get(p["type"], "text")


def default(p):
    if p["type"] == "tensor" or p["default"] is None:
        return "none"
    return f"`{str(p['default']).lower() if p['type'] == 'bool' else p['default']}`"


def parameters(record):
    if not record["params"]:
        return "It has no parameters.\n"
    lines = ["| parameter | type | default | accepted | meaning |", "|---|---|---|---|---|"]
    for p in record["params"]:
        cells = f"`{p['name']}`", p["type"], default(p), cell(accepted(p)), cell(p["doc"])
        lines.append("| " + " | ".join(cells) + " |")
    sweep = record["sweep"]
    if sweep["values"]:
        tried = ", ".join(f"{v:g}" for v in sweep["values"])
        lines += ["", f"`regard frontier` tries `{sweep['param']}` = {tried}."]
    return "\n".join(lines) + "\n"


def twin(record):
    if record["twin"]:
        setting = f"With `{record['name']}:{record['twin']}`"
    elif "weights" in record["needs"]:
        setting = "With tensors that keep everything"
    else:
        return "It is exact attention.\n"
    return f"{setting} it equals exact attention, which the tests hold it to.\n"


def picture(name, out):
    """The plan on every planted generator (tools/gen_plan_pictures.py), where it was drawn."""
    index = PLANS / "plans.json"
    drawn = json.loads(index.read_text()).get(name) if index.exists() else None
    if not drawn:
        return ""
    link = pathlib.PurePath(os.path.relpath(PLANS / f"{name}.png", out)).as_posix()
    kinds = list(drawn["density"])
    setting = f" with `{drawn['parameters']}`" if drawn["parameters"] else ""
    rows = ["| " + " | ".join(kinds) + " |", "|---" * len(kinds) + "|",
            "| " + " | ".join(f"{d:.3f}" for d in drawn["density"].values()) + " |"]
    return (f"## Its plan\n\n![plans of {name} on {', '.join(kinds)}]({link})\n\n"
            f"On planted inputs of 4096 tokens{setting}, queries down, keys across; from left to "
            "right, with the share of the pairs that is read:\n\n" + "\n".join(rows) + "\n")


def page(record, out):
    name = record["name"]
    needs = ", ".join(NEEDS.get(n, n) for n in record["needs"]) or "nothing beyond q, k and v"
    prefix = ("A row's output depends on no later token, so prefill and decode agree."
              if record["prefix"] else
              "A row's output may depend on later tokens of its tile or strip, through what they "
              "make it choose.")
    sections = [f"# {record['title']}\n", record["summary"] + "\n",
                f"- Paper: {record['paper']}\n"
                f"- Family: {record['family']}; phase: {record['phase']}\n- Needs: {needs}\n",
                "## When to use it\n", record["when"] + "\n", picture(name, out),
                "## Parameters\n", parameters(record),
                "## Cost\n", record["cost"] + "\n", "## Exactness\n", twin(record), prefix + "\n"]
    if record["differs"]:
        sections += ["## Paper and authors' code\n", record["differs"] + "\n"]
    source = f"src/recipes/{record['family']}/{name}.cc"
    sections += ["## Use\n",
                 f"```\nregard describe {name}\nregard run MODEL.gguf TEXT --method {name}\n```\n"
                 f"```python\nout, lse = regard.attend(q, k, v, method=\"{name}\")\n```\n",
                 f"Source: `{source}`. Oracle: `tests/oracles/{name}.py`.\n"]
    return "\n".join(sections)


def index(records):
    lines = ["# Methods\n", "Generated from the catalogue's records.\n"]
    for family in dict.fromkeys([*FAMILIES, *(r["family"] for r in records)]):
        members = [r for r in records if r["family"] == family]
        if members:
            lines += [f"## {FAMILIES.get(family, family)}\n", "| method | | year | phase |",
                      "|---|---|---|---|"]
            lines += [f"| [{r['name']}]({r['name']}.md) | {cell(r['title'])} | {r['year']} "
                      f"| {r['phase']} |" for r in members] + [""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    records = [regard.describe(name) for name in regard.methods()]
    for old in out.glob("*.md"):
        old.unlink()
    (out / "README.md").write_text(index(records))
    for record in records:
        (out / f"{record['name']}.md").write_text(page(record, out))


if __name__ == "__main__":
    main()
