"""Instructions a query-key pair of three kernels, counted by callgrind: a gate without noise.

    instructions.py PROGRAM            fails if a kernel needs more than 1 % above the record
    instructions.py PROGRAM --update   writes the record: `make update-instructions`

PROGRAM is one_call. What is counted is its second call of attend(), one thread, AVX2 (valgrind knows
no AVX-512). Update the record when a kernel got better, or when one got worse and the commit says why.
The record names the compiler; another one writes other instructions, and the test is skipped (77).
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

RECORD = pathlib.Path(__file__).with_name("record.json")
CASES = ("prefill_d64_f16", "decode_d128_f16", "tiles_d64_f16")
ALLOWED = 1.01


def count(program, case):
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch, "callgrind.out")
        run = subprocess.run(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--collect-atstart=no",
             "--toggle-collect=counted_call", program, case],
            env=dict(os.environ, REGARD_CPU_TARGET="AVX2"), capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{case}: {run.stderr[-1000:]}")
        total = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.M)
    instructions = int(total[1])
    if not instructions:
        sys.exit(f"{case}: nothing counted; has counted_call another name now?")
    return instructions / int(run.stdout)


def compiler(program):
    comment = subprocess.run(["readelf", "-p", ".comment", program], capture_output=True, text=True)
    return re.search(r"\]\s+(.*)", comment.stdout)[1]


def main():
    program = sys.argv[1]
    now = {case: round(count(program, case), 3) for case in CASES}
    if "--update" in sys.argv:
        RECORD.write_text(json.dumps({"compiler": compiler(program), "per_pair": now}, indent=1) + "\n")
        print(f"{RECORD}: {now}")
        return 0
    record = json.loads(RECORD.read_text())
    if record["compiler"] != compiler(program):
        print(f"skipped: recorded with {record['compiler']}, built with {compiler(program)}")
        return 77
    worse = [c for c in CASES if now[c] > record["per_pair"][c] * ALLOWED]
    for c in CASES:
        change = now[c] / record["per_pair"][c] - 1
        print(f"{c}: {now[c]:.2f} instructions a pair, {change:+.1%} {'MORE' if c in worse else ''}")
    if any(now[c] < record["per_pair"][c] / ALLOWED for c in CASES):
        print("better than the record: `make update-instructions` keeps it so")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
