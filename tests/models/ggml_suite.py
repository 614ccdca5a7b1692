"""ggml's own suite for attention, run against the plug-in and summed up.

    ggml_suite.py BIN_DIR [--match REGEX] [--passes-min N] [--refusals-max N]

Ends with the line 'N passed, N failed, N skipped' (skipped: refused by the plug-in, each with its
reason) and fails if a case fails, if one is refused without a reason, or if a bound is broken.
"""
import argparse
import collections
import os
import pathlib
import re
import subprocess
import sys
import tempfile

CASE = re.compile(r"FLASH_ATTN_EXT\((?P<case>.*?)\): (?P<result>OK|FAIL|not supported)")
REASON = re.compile(r"regard: attention left to ggml: (.*)")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def run(bin_dir, match=None):
    """(passed, failed, refused) cases, reasons for refusals, and what else was said."""
    env = dict(os.environ, GGML_BACKEND_PATH=str(bin_dir / "libggml-regard.so"), REGARD_LOG="plan")
    env.pop("REGARD_METHOD", None)
    command = [str(bin_dir / "test-backend-ops"), "test", "-o", "FLASH_ATTN_EXT", "-b", "REGARD"]
    if match:
        command += ["-p", match]
    with tempfile.TemporaryFile("w+") as err:
        out = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=err, text=True)
        err.seek(0)
        said = err.read()
    results = collections.defaultdict(list)
    for found in CASE.finditer(ANSI.sub("", out.stdout)):
        results[found["result"]].append(found["case"])
    reasons = REASON.findall(said)
    return results["OK"], results["FAIL"], results["not supported"], reasons, said, out.returncode


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin_dir", type=pathlib.Path)
    parser.add_argument("--match", help="only cases whose parameters match this regular expression")
    parser.add_argument("--passes-min", type=int, default=1)
    parser.add_argument("--refusals-max", type=int, default=10**9)
    args = parser.parse_args()
    passed, failed, refused, reasons, said, code = run(args.bin_dir.resolve(), args.match)
    ran = re.compile(r"regard: \d+ nodes, .*")
    for line in ran.findall(said):
        print(line)
    # ggml asks about a case more than once; it is the same answer each time.
    for reason, times in sorted(collections.Counter(reasons).items()):
        print(f"refused ({times} questions): {reason}")
    for case in failed:
        print("FAILED:", case)
    problems = []
    if failed or (code and not passed):
        problems.append(f"{len(failed)} cases failed, exit {code}")
    if refused and not reasons:
        problems.append("cases were refused without a reason")
    if len(refused) > args.refusals_max:
        problems.append(f"{len(refused)} refused, at most {args.refusals_max} accepted")
    if len(passed) < args.passes_min:
        problems.append(f"{len(passed)} passed, at least {args.passes_min} wanted")
    if code and not problems:
        problems.append(f"test-backend-ops ended with {code}:\n{said[-2000:]}")
    for problem in problems:
        print("problem:", problem)
    print(f"{len(passed)} passed, {len(failed)} failed, {len(refused)} skipped")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
