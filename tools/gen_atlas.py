#!/usr/bin/env python3
"""Writes docs/atlas.md from the rows of real frontier runs: every number comes from rows.jsonl.

    tools/gen_atlas.py --out docs/atlas.md build/frontier [build/frontier-gemma ..]
"""
import argparse
import json
import os
import pathlib
import shlex

LOSS = 0.01    # share of exact's loss that a faithful row may lose
FOUND = 0.95   # share of the copies' gain, and of exact's needles, that full recall keeps

FAMILIES = {"pattern": "fixed patterns", "dynamic": "chosen from the data",
            "clustered": "groups of tokens", "hybrid": "several branches",
            "profile": "a method for each head"}


class Run:
    """One folder of a frontier."""

    def __init__(self, folder):
        self.folder = folder
        lines = [json.loads(x) for x in (folder / "rows.jsonl").read_text().splitlines()]
        kind = lambda k: [j for j in lines if j["kind"] == k]
        self.head, self.model = kind("frontier")[0], (kind("model") or [{}])[0]
        self.rows, self.planted, self.best = kind("row"), kind("planted"), (kind("best") or [None])[0]
        self.lengths = sorted({r["length"] for r in self.rows
                               if self.find(r["length"], "exact") and self.find(r["length"], "llama.cpp")})

    def find(self, length, name):
        return next((r for r in self.rows if r["length"] == length and r["name"] == name), None)

    def methods(self, length):
        return [r for r in self.rows if r["length"] == length and "method" in r and not exactly(r)]

    def copies(self, row):
        e = self.find(row["length"], "exact")
        none, all_, mine = (x.get("copy_loss") for x in (e["recall_without"], e["recall"], row["recall"]))
        if None in (none, all_, mine) or none - all_ < 0.01:
            return None
        return (none - mine) / (none - all_)

    def needles(self, row):
        return row["recall"].get("needle_hits")

    def beyond_windows(self, row):
        """How many times less time than exact in the layers without a sliding window; None: all layers are."""
        e = self.find(row["length"], "exact")
        layers = e.get("global_layers", [])
        if len(layers) in (0, len(e.get("layer_s", []))) or "layer_s" not in row:
            return None
        seconds = lambda r: sum(r["layer_s"][i] for i in layers)
        return seconds(e) / seconds(row)

    def faithful(self, row):
        return row["loss_rise"] <= LOSS * self.find(row["length"], "exact")["loss"]

    def finds(self, row):
        e = self.find(row["length"], "exact")
        copies, needles, all_ = self.copies(row), self.needles(row), self.needles(e)
        return (copies is None or copies >= FOUND) and (needles is None or needles >= FOUND * all_ - 1e-9)

    def front(self, length):
        """No other row is both faster and more faithful, exact among them."""
        exact, out = self.find(length, "exact"), []
        for r in sorted(self.methods(length), key=lambda r: (r["attention_s"], r["loss_rise"])):
            if r["attention_s"] < exact["attention_s"] and (not out or r["loss_rise"] < out[-1]["loss_rise"]):
                out.append(r)
        return out


def exactly(row):
    return row["calls"] and sum(row["exact_calls"].values()) >= row["calls"]


def percent(x, digits=0):
    return "–" if x is None else f"{100 * x:.{digits}f} %"


def short(row):
    return "profile `" + os.path.basename(row["name"]) + "`" if row["name"][0] == "@" else f"`{row['name']}`"


def table(head, rows):
    if not rows:
        return ["None.", ""]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head),
            *("| " + " | ".join(map(str, r)) + " |" for r in rows), ""]


COLUMNS = ["row", "attention s", "x exact", "x llama.cpp", "prefill x llama.cpp", "pairs", "planning",
           "loss rise", "KL", "copies", "needles"]


def cells(run, r):
    e, l = run.find(r["length"], "exact"), run.find(r["length"], "llama.cpp")
    return [short(r), f"{r['attention_s']:.2f}", f"{e['attention_s'] / r['attention_s']:.2f}",
            f"{l['attention_s'] / r['attention_s']:.2f}", f"{l['prefill_s'] / r['prefill_s']:.2f}",
            percent(r["density"], 1), percent(r["plan_s"] / r["attention_s"]), f"{r['loss_rise']:+.4f}",
            f"{r['kl']:.4f}", percent(run.copies(r)), percent(run.needles(r))]


def in_global_layers(run, row):
    times = run.beyond_windows(row)
    count = len(run.find(row["length"], "exact").get("global_layers", []))
    return f" In the {count} layers without a sliding window, the only ones it replaces: {times:.2f} times less." if times else ""


def length_section(run, n):
    e, l, rows = run.find(n, "exact"), run.find(n, "llama.cpp"), run.methods(n)
    out = [f"### {n:,} tokens", "",
           f"llama.cpp's own attention takes {l['attention_s']:.2f} s of a prefill of {l['prefill_s']:.2f} s; "
           f"exact attention on Regard {e['attention_s']:.2f} s of {e['prefill_s']:.2f} s "
           f"({l['attention_s'] / e['attention_s']:.2f} times as fast). Exact's loss is {e['loss']:.4f}. "
           f"{len(rows)} settings ran.", ""]
    good = sorted((r for r in rows if run.faithful(r) and run.finds(r) and r["attention_s"] < e["attention_s"]),
                  key=lambda r: r["attention_s"])
    if good:
        b = good[0]
        out += [f"Fastest within {percent(LOSS)} of the loss that also finds {percent(FOUND)} of what exact finds: {short(b)}, "
                f"{e['attention_s'] / b['attention_s']:.2f} times less attention time than exact, the whole "
                f"prefill {l['prefill_s'] / b['prefill_s']:.2f} times llama.cpp's speed." + in_global_layers(run, b), ""]
    else:
        out += [f"No setting is faster than exact, within {percent(LOSS)} of its loss and finds {percent(FOUND)} of what it finds.", ""]
    front = run.front(n)
    out += ["The frontier: no other row is both faster and more faithful.", ""]
    out += table(COLUMNS, [cells(run, r) for r in front])
    if any(run.beyond_windows(r) for r in front):
        out += ["Less time than exact in the layers without a sliding window: " +
                "; ".join(f"{short(r)} {run.beyond_windows(r):.2f} times" for r in front) + ".", ""]
    by_family = {}
    for r in good:
        by_family.setdefault(r["family"], r)
    out += ["The fastest of each family within those limits:", ""]
    out += table(["family", *COLUMNS], [[FAMILIES.get(f, f), *cells(run, r)] for f, r in by_family.items()])
    return out


def lessons(run):
    n = run.lengths[-1]
    e, rows = run.find(n, "exact"), run.methods(n)
    by_method = {}
    for r in rows:
        by_method.setdefault(r["method"], []).append(r)
    out = [f"### What does not pay at {n:,} tokens", "",
           "Methods none of whose settings is faster than exact attention here:", ""]
    slow = [min(rs, key=lambda r: r["attention_s"]) for rs in by_method.values()
            if min(r["attention_s"] for r in rs) >= e["attention_s"]]
    out += table(COLUMNS, [cells(run, r) for r in sorted(slow, key=lambda r: r["attention_s"])])
    out += ["Methods that spend over a tenth of exact's attention time on planning alone, at any setting:", ""]
    heavy = [min(rs, key=lambda r: r["plan_s"]) for rs in by_method.values()
             if min(r["plan_s"] for r in rs) > 0.1 * e["attention_s"]]
    out += table(["row", "planning s", "of exact's attention", "largest stage"],
                 [[short(r), f"{r['plan_s']:.2f}", percent(r["plan_s"] / e["attention_s"]),
                   max(((s, k) for k, s in r["stages"].items() if k != "attend"), default=(0, "–"))[1]]
                  for r in sorted(heavy, key=lambda r: -r["plan_s"])])
    out += ["### What the loss hides", "",
            f"Settings within {percent(LOSS)} of the loss that miss more than a third of the copies:", ""]
    blind = [r for r in rows if run.faithful(r) and run.copies(r) is not None and run.copies(r) < 2 / 3]
    out += table(COLUMNS, [cells(run, r) for r in sorted(blind, key=lambda r: run.copies(r))])
    exact_rows = [r for r in run.rows if r["length"] == n and "method" in r and exactly(r)]
    if exact_rows:
        out += ["Left out above, because every call ran exactly: " +
                "; ".join(f"{short(r)} ({', '.join(r['exact_calls'])})" for r in exact_rows) + ".", ""]
    return out


def crossings(run):
    """From which of the measured lengths on a method's fastest faithful setting beats exact."""
    out = []
    for m in sorted({r["method"] for n in run.lengths for r in run.methods(n)}):
        wins = [n for n in run.lengths
                if any(r["method"] == m and run.faithful(r) and
                       r["attention_s"] < run.find(n, "exact")["attention_s"] for r in run.methods(n))]
        out.append([m if m != "profile" else "profiles", f"{min(wins):,}" if wins else "none measured"])
    return ["### From which length it pays", "",
            f"The shortest measured length at which some setting is faster than exact and within {percent(LOSS)} "
            "of its loss:", "", *table(["method", "tokens"], out)]


def planted_section(run):
    if not run.best:
        return []
    out = ["### Against the best possible mask", "",
           f"Planted inputs of {run.best['tokens']:,} tokens. For each, the setting that keeps at least 95 % of the "
           "attention and reads least, beside the best masks of pairs and of 64 x 64 tiles that keep as much.", ""]
    rows = []
    for i in run.best["inputs"]:
        least = lambda curve: next((d for d, m in curve if m >= 0.95), None)
        ok = [(p["density"], j["name"]) for j in run.planted for p in j["points"]
              if p["input"] == i["input"] and (p.get("mass") or 0) >= 0.95]
        best = min(ok, default=(None, "none"))
        rows.append([i["input"], f"`{best[1]}`", percent(best[0], 1), percent(least(i["pairs"]), 2),
                     percent(least(i["tiles"]), 1)])
    return out + table(["input", "setting", "it reads", "best pairs", "best tiles"], rows)


def command(run):
    h = run.head
    return " ".join(shlex.quote(str(x)) for x in
                    ["regard", "frontier", h["model"], h["text"], "--lengths",
                     ",".join(str(n) for n in run.lengths),
                     *[x for name in sorted({r["name"] for r in run.rows if r["name"][0] == "@"})
                       for x in ("--profile", name[1:])],
                     *(["--numeric", h["numeric"]] if h.get("numeric", "default") != "default" else []),
                     "--ubatch", h["ubatch"], "--threads", h["threads"],
                     "--kv", h["kv"], "--score", h["score"], "--seed", h["seed"], "--planted-tokens",
                     h["planted_tokens"], "--out", run.folder])


def title(run):
    return run.model.get("description", "planted inputs only")


def section(run, runs):
    h = run.head
    alone = sum(title(r) == title(run) for r in runs) == 1
    out = [f"## {title(run)}" + ("" if alone else f", `{run.folder}`"), "",
           f"{h['machine']}, {h['threads']} threads, micro-batches of {h['ubatch']}, {h['kv']} cache, "
           f"{h.get('numeric', 'default')} arithmetic, "
           f"{os.path.basename(h['text'])}, Regard {h['regard']}, begun {h['date']}.", "",
           "```", command(run), "```", ""]
    for n in reversed(run.lengths):
        out += length_section(run, n)
    if run.lengths:
        out += lessons(run) + crossings(run)
    return out + planted_section(run)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    a = parser.parse_args()
    lines = ["# Atlas: what sparse attention costs and gives", "",
             "Made by `make frontier` (`tools/gen_atlas.py`) from measured rows; nothing here is typed by hand. "
             "Each row ran once: differences of a few per cent in time are noise.", "",
             "Loss rise and KL are against exact attention at evenly spaced positions. Copies: the share of what "
             "exact gains from a passage's first copy, far back, when it reads the second. Needles: the share of "
             "tokens of codes, asked for at the end, that come out likeliest. Planning: its share of attention "
             "time.", ""]
    runs = [Run(folder) for folder in a.folders]
    for run in runs:
        lines += section(run, runs)
    a.out.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
