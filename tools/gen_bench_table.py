#!/usr/bin/env python3
"""A Markdown table of the rows with targets of a `regard bench --json` file.

    tools/gen_bench_table.py build/bench.json > bench/results/DATE-cpu.md
"""
import json
import sys


def cell(row):
    """Every measure with a target, with the target where it was missed."""
    out = []
    for target in row.get("targets", []):
        name = target["measure"]
        if name not in row["measures"]:
            out.append(f"{name} ?")
            continue
        value = row["measures"][name][0]
        least, most = target.get("at_least"), target.get("at_most")
        bound = f" (>= {least})" if least is not None else f" (<= {most})"
        out.append(f"{name} {value:.2f}" + (f" **missed**{bound}" if target["verdict"] == "miss" else ""))
    return "; ".join(out)


def main():
    bench = json.load(open(sys.argv[1], encoding="utf-8"))
    peaks = "; ".join(f"{p['threads']} thread{'s' * (p['threads'] > 1)}: f32 FMA {p['fma_gflops']:.0f} GFLOP/s, bf16 "
                      f"{p['bf16_gflops']:.0f}, int8 {p['int8_gops']:.0f}, read {p['read_gbs']:.1f} GB/s"
                      for p in bench["peaks"])
    print(f"`regard bench --group all` on {bench['cpu']} ({bench['target']}); {peaks}; peers: "
          + ", ".join(f"{k} {v}" for k, v in bench["peers"].items()) + ".\n")
    rows = {}
    for row in bench["rows"]:
        rows.setdefault((row["group"], row["problem"]), {})[row["threads"]] = row
    threads = sorted({row["threads"] for row in bench["rows"]})
    group = None
    for (name, problem), by in rows.items():
        if not any(r.get("targets") for r in by.values()):
            continue
        if name != group:
            group = name
            print(f"\n## {name}\n")
            print("| problem | " + " | ".join(f"{t} thread{'s' * (t > 1)}" for t in threads) + " |")
            print("|---" * (1 + len(threads)) + "|")
        cells = []
        for t in threads:
            rate = f"{by[t]['gflops']:.0f} GFLOP/s; " if by[t].get("gflops") else ""
            cells.append(rate + cell(by[t]))
        print(f"| `{problem}` | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
