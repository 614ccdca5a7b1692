"""llama.cpp's own benchmarks with and without the plug-in: `make bench-llama`.

    llama.py BIN_DIR MODEL [--out TABLE.md] [--rounds 3] [--prompts 512,2048,8192] [--threads 1,2]

llama-bench and `test-backend-ops perf -o FLASH_ATTN_EXT` run in turn with ggml's attention and with
Regard's, so that both meet the same machine; ratios are medians of the rounds' own. The suite runs
each shape on half of the processors; the shapes that take minutes are left out. Ends with the worst
ratio against ggml.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

CASE = re.compile(r"FLASH_ATTN_EXT\((.*?)\):\s+.*?([\d.]+) us/run")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
# Up to 32K keys; strips of 512 queries up to 20K keys; none of 4096 queries and more.
SHAPES = r"kv=(128|512|1024|2048|4096|7680|8192|10000|16384|20000|32768),nb=(1|4|512),"
SLOW = re.compile(r"kv=(20000|32768),nb=512|hsk=576.*kv=(16384|32768),nb=512")


def environment(plugin):
    env = {k: v for k, v in os.environ.items() if not k.startswith("REGARD_")}
    env.pop("GGML_BACKEND_PATH", None)
    return dict(env, GGML_BACKEND_PATH=str(plugin)) if plugin else env


def output(command, plugin):
    run = subprocess.run([str(c) for c in command], env=environment(plugin), capture_output=True,
                         text=True)
    if run.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {run.stderr[-1000:]}")
    return ANSI.sub("", run.stdout)


def perf(bin_dir, plugin, pattern):
    """{case: microseconds}"""
    text = output([bin_dir / "test-backend-ops", "perf", "-o", "FLASH_ATTN_EXT", "-b",
                   "REGARD" if plugin else "CPU", "-p", pattern], plugin)
    return {case: float(us) for case, us in CASE.findall(text)}


def tokens_a_second(bin_dir, plugin, model, prompt, generate, threads):
    rows = json.loads(output([bin_dir / "llama-bench", "-m", model, "-fa", "1", "-p", prompt, "-n",
                              generate, "-d", 0 if prompt else 2048, "-t", threads, "-r", "1", "-o",
                              "json"], plugin))
    return rows[0]["avg_ts"]


def alternate(rounds, measure, plugin):
    """Pairs (ggml, regard), the order changing from round to round."""
    pairs = []
    for n in range(rounds):
        both = {p is not None: measure(p) for p in ((None, plugin) if n % 2 == 0 else (plugin, None))}
        pairs.append((both[False], both[True]))
    return pairs


def middle(values):
    values = list(values)
    return statistics.median(values), (max(values) - min(values)) / statistics.median(values)


def whole_model(args, plugin, say):
    say("| tokens a second | threads | llama.cpp | with Regard | ratio | spread |")
    say("|---|---|---|---|---|---|")
    for threads in args.threads:
        for prompt, generate in [(p, 0) for p in args.prompts] + [(0, 32)]:
            pairs = alternate(args.rounds, lambda p: tokens_a_second(
                args.bin_dir, p, args.model, prompt, generate, threads), plugin)
            ratio, spread = middle(b / a for a, b in pairs)
            what = f"prompt of {prompt}" if prompt else f"{generate} written after 2048"
            say(f"| {what} | {threads} | {middle(a for a, _ in pairs)[0]:.1f} "
                f"| {middle(b for _, b in pairs)[0]:.1f} | {ratio:.2f} | {spread:.0%} |")
    say("")


def shapes(args, plugin, say):
    rounds = alternate(args.rounds, lambda p: perf(args.bin_dir, p, args.shapes), plugin)
    both = [c for c in rounds[0][0] if c in rounds[0][1] and not SLOW.search(c)]
    rows = []
    for case in both:
        ratio, spread = middle(ggml[case] / regard[case] for ggml, regard in rounds)
        rows.append((ratio, spread, middle(g[case] for g, _ in rounds)[0],
                     middle(r[case] for _, r in rounds)[0], case))
    rows.sort()
    say("| times ggml | spread | ggml us | Regard us | shape |")
    say("|---|---|---|---|---|")
    for ratio, spread, ggml, regard, case in rows:
        say(f"| {ratio:.2f} | {spread:.0%} | {ggml:.0f} | {regard:.0f} | {case} |")
    refused = sorted(set(rounds[0][0]) - set(rounds[0][1]))
    say(f"\n{len(rows)} shapes, {sum(r[0] < 1 for r in rows)} slower than ggml, {len(refused)} left to ggml; "
        f"worst ratio {rows[0][0]:.2f}: {rows[0][4]}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin_dir", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    numbers = lambda text: [int(n) for n in text.split(",")]
    parser.add_argument("--prompts", type=numbers, default=[512, 2048, 8192])
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--only", choices=["model", "shapes"])
    args = parser.parse_args()
    plugin = (args.bin_dir / "libggml-regard.so").resolve()
    lines = []

    def say(line):
        lines.append(line)
        print(line, flush=True)
    if args.only != "shapes":
        whole_model(args, plugin, say)
    if args.only != "model":
        shapes(args, plugin, say)
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
