#!/usr/bin/env python3
"""Times the planning of every method that needs no weights against exact attention, by stage.

    PYTHONPATH=build/python tools/plan_cost.py [--tokens 16384] [--heads 4] [METHOD ...]

Medians of `rounds` runs at the defaults on planted input ("mixed": each head another structure); a
table in Markdown, dearest first.
"""
import argparse
import statistics
import time

import regard


def timed(run, rounds):
    took, last = [], None
    for _ in range(rounds):
        begin = time.perf_counter()
        last = run()
        took.append(time.perf_counter() - begin)
    return statistics.median(took), last


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("methods", nargs="*")
    a = parser.parse_args()
    free = [n for n in regard.methods() if "weights" not in regard.describe(n)["needs"]]
    x = regard.planted("mixed", heads=a.heads, tokens=a.tokens, dim=64)
    exact, _ = timed(lambda: regard.attend(*x, method="dense", threads=a.threads), a.rounds)
    print(f"{a.heads} heads, {a.tokens} tokens, D64; exact attention {exact * 1e3:.0f} ms\n")
    rows = []
    for name in a.methods or free:
        if name not in free:
            continue
        took, plan = timed(lambda: regard.plan(*x, method=name, threads=a.threads), a.rounds)
        stages = sorted(plan.seconds.items(), key=lambda s: -s[1])
        top = ", ".join(f"{s} {t / exact:.1%}" for s, t in stages[:3] if t > exact / 1000)
        rows.append((took / exact, f"| {name} | {took * 1e3:.0f} | {took / exact:.1%} "
                                   f"| {plan.density:.3f} | {top or '-'} |"))
    print("| method | plan, ms | of exact | density | stages |\n|---|---|---|---|---|")
    for _, row in sorted(rows, reverse=True):
        print(row)


if __name__ == "__main__":
    main()
