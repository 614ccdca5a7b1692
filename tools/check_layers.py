#!/usr/bin/env python3
"""Checks the include rule of the architecture: who may see whom.

core <- algebra <- plan <- {stages, memory, io} <- exec <- recipes <- {cli, integrations};
ref, cpu, cuda and absent see core, algebra, plan and the stages' declarations only. Nobody includes
a recipe; only integrations and the cli know ggml or Python. A public header says its layer on its
first lines ("Layer: plan."); inside src/ the folder is the layer.
"""
import pathlib
import re
import sys

BELOW = {
    "core": set(),
    "algebra": {"core"},
    "plan": {"core", "algebra"},
    "stages": {"core", "algebra", "plan"},
    "memory": {"core", "algebra", "plan"},
    "io": {"core", "algebra", "plan"},
}
_kernel = {"core", "algebra", "plan", "stages"}
for name in ("ref", "cpu", "cuda", "absent"):
    BELOW[name] = set(_kernel)
BELOW["absent"].add("cuda")  # it answers in that layer's place
BELOW["exec"] = set(BELOW)
BELOW["recipes"] = {"core", "algebra", "plan", "stages", "memory", "exec"}
BELOW["cli"] = BELOW["integrations"] = set(BELOW) - {"recipes"}
BELOW["cli"] = BELOW["cli"] | {"integrations"}

FOREIGN = re.compile(r"^(ggml|llama|nanobind|Python|nccl|mpi)")
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.M)


def layer_of(root, path):
    parts = path.relative_to(root).parts
    if parts[0] == "src":
        return parts[1]
    if parts[0] == "integrations":
        return "integrations"
    found = re.search(r"Layer: (\w+)\.", "".join(path.open().readlines()[:8]))
    if not found or found[1] not in BELOW:
        raise SystemExit(f"{path.relative_to(root)}: first lines must say 'Layer: NAME.'")
    return found[1]


def resolve(root, including, target):
    for base in (including.parent, root / "include", root / "src", root):
        candidate = (base / target).resolve()
        if candidate.is_file() and root in candidate.parents:
            return candidate
    return None


def violations(root):
    root = pathlib.Path(root).resolve()
    files = [f for d in ("include", "src", "integrations") for f in (root / d).rglob("*")
             if f.suffix in {".h", ".cc", ".cu", ".cuh"}]
    for path in sorted(files):
        mine = layer_of(root, path)
        name = path.relative_to(root)
        for target in INCLUDE.findall(path.read_text()):
            if mine not in {"cli", "integrations"} and FOREIGN.match(target):
                yield f"{name}: layer {mine} must not know {target}"
            found = resolve(root, path, target)
            if found is None or found.suffix == ".def":
                continue
            theirs = layer_of(root, found)
            if theirs == "recipes" and (mine != "recipes" or found.suffix != ".h"):
                yield f"{name}: nobody includes a recipe ({target})"
            elif theirs != mine and theirs not in BELOW[mine]:
                yield f"{name}: layer {mine} must not include {target} of layer {theirs}"


if __name__ == "__main__":
    found = list(violations(sys.argv[1] if len(sys.argv) > 1 else "."))
    print("\n".join(found) if found else "layers: every include is allowed")
    sys.exit(bool(found))
