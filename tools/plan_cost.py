#!/usr/bin/env python3
"""Times the planning of every method that needs no weights against exact attention, by stage, and
finds the length from which the whole method is faster.

    tools/plan_cost.py [--regard build/bin/regard] [--tokens 16384] [--heads 2] [METHOD ...]

What `regard explain --break-even` says (medians of 3) at the defaults on planted input ("mixed":
each head another structure), from 1024 tokens on; a table in Markdown, dearest first.
"""
import argparse
import json
import subprocess
import sys


def explained(a, name):
    run = subprocess.run([a.regard, "explain", name, "--planted", "mixed", "--tokens", str(a.tokens),
                          "--heads", str(a.heads), "--threads", str(a.threads), "--break-even",
                          "--json"], capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr)
    return json.loads(run.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--regard", default="build/bin/regard")
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("methods", nargs="*")
    a = parser.parse_args()
    listed = subprocess.run([a.regard, "list"], capture_output=True, text=True, check=True).stdout
    rows = []
    for name in a.methods or [line.split()[0] for line in listed.splitlines()]:
        told = explained(a, name)
        if told["refusal"]:
            continue
        t = told["times"][-1]
        exact, total = t["exact_s"], t["planning_s"] + t["attention_s"]
        stages = sorted(t["stages_s"].items(), key=lambda s: -s[1])
        top = ", ".join(f"{s} {x / exact:.1%}" for s, x in stages[:3] if x > exact / 1000)
        wins = f"{told['break_even_tokens']:,}" if told["break_even_tokens"] else "-"
        rows.append((t["planning_s"] / exact,
                     f"| {name} | {t['planning_s'] * 1e3:.0f} | {t['planning_s'] / exact:.1%} "
                     f"| {t['density']:.3f} | {exact / total:.2f} | {wins} | {top or '-'} |"))
        print(name, file=sys.stderr)
    print("| method | plan, ms | of exact | density | times as fast | from | stages |\n"
          "|---|---|---|---|---|---|---|")
    for _, row in sorted(rows, reverse=True):
        print(row)


if __name__ == "__main__":
    main()
