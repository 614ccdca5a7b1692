"""Ratios that may not get worse: `make bench-gate`.

    gate.py REGARD            times the lines marked `quick` and compares with bench/gates/TARGET.json
    gate.py REGARD --update   three runs, whose medians and noise become the record

Gated are ratios within one run: share of the peak, ratio to ggml, rate of a sparse or quantised
problem against its base, plan time against dense attention. A ratio is worse when it falls below the
record by more than the noise recorded with it, in this run and in two more of its problem alone.
"""
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).with_name("gates")
GATED = ("peak", "read", "ggml", "rate", "plan")
LOWER_IS_BETTER = ("plan",)
LEAST_NOISE = 0.03  # of any ratio: medians of 7 rounds never agree better on a shared machine
RUNS, RETRIES = 3, 2


def bench(regard, *words):
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch, "bench.json")
        run = subprocess.run([regard, "bench", *words, "--json", str(out)], capture_output=True,
                             text=True)
        if run.returncode:
            sys.exit(f"regard bench {' '.join(words)}: {run.stderr or run.stdout}")
        result = json.loads(out.read_text())
    if "not_quiet" in result:
        sys.exit(f"bench-gate: {result['not_quiet']}")
    return result


def ratios(result):
    """{(problem, threads, measure): (value, spread over the rounds)}"""
    found = {}
    for row in result["rows"]:
        for measure, (value, spread) in row.get("measures", {}).items():
            if measure in GATED and "targets" in row:
                found[row["problem"], row["threads"], measure] = value, spread
    return found


def key_text(key):
    return f"{key[0]} [{key[1]} threads] {key[2]}"


def update(regard):
    results = [bench(regard, "--group", "all", "--quick") for _ in range(RUNS)]
    runs = [ratios(r) for r in results]
    rows = []
    for key in runs[0]:
        values = [r[key][0] for r in runs]
        middle = statistics.median(values)
        noise = max((max(values) - min(values)) / middle, LEAST_NOISE,
                    statistics.median(r[key][1] for r in runs))
        rows.append({"problem": key[0], "threads": key[1], "measure": key[2],
                     "value": round(middle, 4), "noise": round(noise, 4)})
    path = FOLDER / f"{results[0]['target'].lower()}.json"
    text = {"cpu": results[0]["cpu"], "target": results[0]["target"]}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**text, "rows": rows}, indent=1) + "\n")
    print(f"{path}: {len(rows)} ratios of {RUNS} runs")


def worse(row, value):
    if row["measure"] in LOWER_IS_BETTER:
        return value > row["value"] * (1 + row["noise"])
    return value < row["value"] * (1 - row["noise"])


def lines_of(problem):
    """The file's line of a problem, with its base."""
    for path in pathlib.Path("bench/problems").glob("*.txt"):
        for line in path.read_text().splitlines():
            if line.split("|")[0].split() == problem.split():
                return line.split("#")[0]
    return problem


def check(regard):
    result = bench(regard, "--group", "all", "--quick")
    path = FOLDER / f"{result['target'].lower()}.json"
    record = json.loads(path.read_text()) if path.exists() else None
    if record is None or record["cpu"] != result["cpu"]:
        known = ", ".join(json.loads(p.read_text())["cpu"] for p in FOLDER.glob("*.json"))
        sys.exit(f"bench-gate: no record for {result['cpu']}, {result['target']} (recorded: {known}); "
                 "`make update-bench-gate` writes one")
    now, failed = ratios(result), 0
    for row in record["rows"]:
        key = row["problem"], row["threads"], row["measure"]
        if key not in now:
            print(f"MISSING {key_text(key)}: it was {row['value']}, the problem is gone or refused")
            failed += 1
            continue
        values = [now[key][0]]
        while worse(row, values[-1]) and len(values) <= RETRIES:
            again = ratios(bench(regard, "--problem", lines_of(key[0])))
            values.append(again[key][0])
        bad = worse(row, values[-1])
        failed += bad
        said = ", ".join(f"{v:.3f}" for v in values)
        print(f"{'WORSE  ' if bad else 'ok     '} {key_text(key)}: {said}; recorded {row['value']:.3f} "
              f"+- {row['noise']:.0%}")
    print(f"{len(record['rows'])} ratios, {failed} worse")
    return 1 if failed else 0


if __name__ == "__main__":
    if "--update" in sys.argv:
        update(sys.argv[1])
    else:
        sys.exit(check(sys.argv[1]))
