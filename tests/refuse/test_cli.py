"""What the command line refuses, and that it says so in one line."""
import json
import os
import re

import numpy as np
import pytest

import regard

VERBS = ["list", "describe", "plan", "attend", "run", "explain", "check", "bench"]


def test_help_has_an_example(cli):
    assert "Example" in cli.good("--help")
    for verb in VERBS:
        text = cli.good(verb, "--help")
        assert re.search(rf"regard {verb}( |$)", text, re.M) and "Example" in text, verb


def test_version(cli):
    assert cli.good("--version").split() == ["regard", regard.version]


def test_list_and_describe(cli):
    text = cli.good("list")
    assert [line.split()[0] for line in text.splitlines()] == regard.methods()
    records = json.loads(cli.good("list", "--json"))
    assert [r["name"] for r in records] == regard.methods()
    for r in records:
        assert r == json.loads(cli.good("describe", r["name"], "--json")) == regard.describe(r["name"])
        shown = cli.good("describe", r["name"])
        assert all(p["name"] in shown for p in r["params"])
        assert max(map(len, shown.splitlines())) <= 100


def test_verbs_and_options(cli):
    cli.refuses(saying=["say a verb", "plan"])
    cli.refuses("plot", saying=["unknown verb 'plot'", "list, describe, plan"])
    cli.refuses("list", "--jason", saying="--jason")
    cli.refuses("describe", saying="NAME")
    cli.refuses("plan", "dense", "--planted", saying="--planted")
    cli.refuses("plan", "dense", "--planted", "noise", "--tokens", "many", saying="many")
    cli.refuses("plan", "dense", "--planted", "noise", "--tokens", "-5", saying="-5")
    cli.refuses("--frobnicate", saying="frobnicate")
    cli.refuses("plan", "dense", "--planted", "noise", "--numeric", "fp4", saying=["fp4", "bf16"])
    for scale in ("nan", "inf", "wide"):
        cli.refuses("plan", "dense", "--planted", "noise", "--scale", scale, saying=["scale", scale])


def test_methods(cli):
    cli.refuses("describe", "xatention", saying=["'xatention'", "xattention"])
    cli.refuses("plan", "vertical_slush", "--planted", "noise", saying="vertical_slash")
    cli.refuses("plan", "dense:x=1", "--planted", "noise", saying=["dense", "'x'"])
    cli.refuses("plan", "xattention:treshold=1", "--planted", "noise",
                saying=["'treshold'", "threshold"])
    cli.refuses("plan", "xattention:threshold=7", "--planted", "noise",
                saying=["threshold=7", "0 to 2"])
    cli.refuses("plan", "xattention", "--set", "block=1.5", "--planted", "noise",
                saying=["block=1.5", "whole number"])
    cli.refuses("plan", "xattention", "--set", "block", "--planted", "noise", saying="key=value")
    cli.refuses("plan", "xattention", "--set", "forced=maybe", "--planted", "noise",
                saying=["forced=maybe", "paper"])
    cli.refuses("plan", "xattention:block=64", "--set", "block=128", "--planted", "noise",
                saying=["block", "twice"])
    cli.refuses("plan", "block_mask", "--set", "mask=@none.npy", "--planted", "noise",
                saying="none.npy")
    cli.refuses("plan", "block_mask", "--planted", "noise", saying=["block_mask", "mask"])


@pytest.mark.parametrize("verb", ["plan", "explain"])
@pytest.mark.parametrize("threads", ["0", "-1", "1000000", "two", "99999999999999999999"])
def test_threads(cli, verb, threads):
    cli.refuses(verb, "dense", "--planted", "noise", "--threads", threads, saying="--threads")


def test_planted(cli):
    cli.refuses("plan", "dense", saying=["--in", "--planted", "needle"])
    cli.refuses("plan", "dense", "--planted", "haystack", saying=["haystack", "needle"])
    cli.refuses("plan", "dense", "--planted", "noise", "--heads", "4", "--kv-heads", "3",
                saying=["4", "3"])
    cli.refuses("plan", "dense", "--planted", "noise", "--tokens", "16000000", "--heads", "64",
                saying="GB")
    cli.refuses("plan", "dense", "--planted", "noise", "--head", "4", saying=["--head 4", "0 to 3"])
    cli.refuses("plan", "dense", "--planted", "noise", "--in", "x.npy", saying="--in")


def test_files(cli, files, tmp_path):
    files.qkv()
    good = (tmp_path / "qkv.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(good[:-1])
    (tmp_path / "stub.safetensors").write_bytes(good[:60])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("once upon a time there was no header at all")
    (tmp_path / "text.npy").write_text("once upon a time")
    (tmp_path / "folder.safetensors").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")

    def refuses(file, *saying):
        cli.refuses("attend", "dense", "--in", file, "--out", "o.safetensors",
                    saying=[str(file), *saying])

    refuses("none.safetensors", "No such file")
    refuses("cut.safetensors", "bytes")
    refuses("stub.safetensors", "cut short")
    refuses("empty.safetensors", "not a safetensors")
    refuses("text.safetensors", "not a safetensors")
    refuses("folder.safetensors", "not a regular file")
    refuses("pipe.safetensors", "not a regular file")
    cli.refuses("attend", "dense", "--in", "text.npy", "text.npy", "text.npy", "--out",
                "o.safetensors", saying="not a .npy")
    cli.refuses("attend", "dense", "--in", "a.npy", "b.npy", "--out", "o.safetensors",
                saying="three")


def test_tensors(cli, files):
    x = np.ones((1, 4, 64, 32), np.float32)

    def refuses(*saying, **change):
        files.qkv("bad.safetensors", **change)
        for verb in (["plan", "dense"], ["attend", "dense", "--out", "o.safetensors"]):
            cli.refuses(*verb, "--in", "bad.safetensors", saying=saying)

    refuses("'q'", "it holds k, v", q=None)
    refuses("'q'", "5 axes", q=x[None])
    refuses("'q'", "empty", q=x[:, :, :0])
    refuses("4", "3", k=x[:, :3, :, :], v=x[:, :3])           # 4 query heads on 3 KV heads
    refuses("64", "96", k=np.ones((1, 2, 64, 32), np.float32))  # k and v of different lengths
    refuses("32", "16", q=x[..., :16].copy())                 # head sizes of q and k
    refuses("2", k=np.ones((2, 2, 96, 32), np.float32))       # batch
    refuses("i32", q=x.astype(np.int64))


def test_outputs(cli, files, tmp_path):
    files.qkv()
    (tmp_path / "folder").mkdir()
    inputs = ["dense", "--in", "qkv.safetensors"]
    cli.refuses("attend", *inputs, "--out", "no/such/o.safetensors", saying="no/such")
    cli.refuses("attend", *inputs, "--out", "folder", saying="directory")
    cli.refuses("attend", *inputs, "--out", "/proc/version", saying="/proc/version")
    cli.refuses("plan", *inputs, "--svg", "no/such/p.svg", saying="no/such")
    cli.refuses("attend", *inputs, saying="--out")
    cli.refuses("attend", *inputs, "--out", "o.safetensors", "--dtype", "f8", saying="f8")
    cli.refuses("attend", *inputs, "--out", "o.safetensors", "--device", "gpu",
                saying=["'gpu'", "cpu, ref"])
    if cli.run("explain", *inputs, "--device", "cuda").returncode:  # no GPU here
        for device in ("cuda", "cuda_sm80"):
            cli.refuses("explain", *inputs, "--device", device, saying=f"--device {device}: ")
        for verb in ("check", "bench"):
            cli.refuses(verb, "--problem", "h1 nq8 nk8 d8", "--device", "cuda", saying="--device cuda: ")


def test_a_full_disk(cli):
    with open("/dev/full", "w") as full:
        done = cli.run("list", stdout=full)
    assert done.returncode == 1 and "No space" in done.stderr


def test_a_failed_run_keeps_the_old_file(cli, files, tmp_path):
    files.qkv()
    (tmp_path / "o.safetensors").write_text("old")
    cli.refuses("attend", "block_mask", "--in", "qkv.safetensors", "--out", "o.safetensors")
    assert (tmp_path / "o.safetensors").read_text() == "old"


# --- what is odd but works -------------------------------------------------------------------------

def test_attend_writes_what_python_computes(cli, files, tmp_path):
    t = files.qkv()
    for device in ("cpu", "ref"):
        text = cli.good("attend", "a_shape", "--set", "n_local=32", "--in", "qkv.safetensors", "--out",
                        "o.safetensors", "--device", device, "--threads", "2")
        assert "density" in text
        got, meta = files.read(tmp_path / "o.safetensors")
        out, lse = regard.attend(t["q"], t["k"], t["v"], method="a_shape", n_local=32, impl=device)
        assert np.array_equal(got["out"], out) and np.array_equal(got["lse"], lse)
        assert meta == {"method": "a_shape:n_local=32", "implementation": device}
    assert os.listdir(tmp_path).count("o.safetensors") == 1
    assert not [f for f in os.listdir(tmp_path) if "tmp" in f]


@pytest.mark.parametrize("method", ["xattention", "reformer"])  # planned on a GPU, and on the CPU
def test_attend_on_a_gpu(cli, files, tmp_path, method):
    halves = {n: (x.view(np.uint32) & 0xFFFF0000).view(np.float32) for n, x in files.qkv().items()}
    t = files.qkv(**halves)  # what bf16 holds
    call = ["attend", method, "--in", "qkv.safetensors", "--out", "o.safetensors", "--device", "cuda"]
    done = cli.run(*call)
    if done.returncode:  # no GPU here
        cli.refuses(*call, saying="--device cuda: ")
        return
    got, meta = files.read(tmp_path / "o.safetensors")
    out, lse = regard.attend(t["q"], t["k"], t["v"], method=method)
    assert np.allclose(got["out"], out, atol=0.03) and np.allclose(got["lse"], lse, atol=0.03)
    assert meta["implementation"].startswith("cuda_sm")
    assert ("planned on the CPU" in done.stdout) == (method == "reformer")


def test_npy_column_mass_and_no_causal(cli, files, tmp_path):
    t = files.qkv()
    np.save(tmp_path / "q.npy", t["q"][0])                       # [H, N, D]
    np.save(tmp_path / "k.npy", np.asfortranarray(t["k"]))       # column-major
    np.save(tmp_path / "v.npy", t["v"].astype(np.float16))
    text = cli.good("attend", "dense", "--in", "q.npy", "k.npy", "v.npy", "--out", "o.safetensors",
                    "--no-causal", "--column-mass", "--dtype", "f64")
    assert "column mass" in text  # the fallback is told
    got, _ = files.read(tmp_path / "o.safetensors")
    out, lse, mass = regard.attend(t["q"], t["k"], t["v"].astype(np.float16).astype(np.float32),
                                   causal=False, column_mass=True, impl="ref", dtype="f64")
    assert np.abs(got["out"] - out).max() < 1e-6
    assert np.abs(got["column_mass"] - mass).max() < 1e-4


def test_unaligned_file(cli, files, tmp_path):
    files.qkv()
    raw = (tmp_path / "qkv.safetensors").read_bytes()
    n = int.from_bytes(raw[:8], "little")
    for pad in range(1, 4):  # the header's length decides where the data begins
        moved = (n + pad).to_bytes(8, "little") + raw[8 : 8 + n] + b" " * pad + raw[8 + n :]
        (tmp_path / "moved.safetensors").write_bytes(moved)
        cli.good("attend", "dense", "--in", "moved.safetensors", "--out", "m.safetensors")
    cli.good("attend", "dense", "--in", "qkv.safetensors", "--out", "o.safetensors")
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "o.safetensors").read_bytes()


def test_plan_prints_and_draws(cli, files, tmp_path):
    files.qkv()
    text = cli.good("plan", "xattention:block=32", "--in", "qkv.safetensors", "--svg", "p.svg")
    assert "density" in text and "█" in text and "head 3" in text
    svg = (tmp_path / "p.svg").read_text()
    assert svg.startswith("<svg") and svg.count("head ") >= 4
    found = json.loads(cli.good("plan", "xattention:block=32", "--in", "qkv.safetensors", "--json"))
    plan = regard.Plan.from_json(json.dumps(found["plan"]))
    assert plan.density == pytest.approx(found["density"])
    assert plan.head_density == pytest.approx(found["head_density"])
    # q and k are enough for a plan.
    t = files.qkv("qk.safetensors", v=None)
    cli.good("plan", "dense", "--in", "qk.safetensors")
    assert "v" in t and t["v"] is None


def test_explain_tells_refusals(cli, files):
    files.qkv()
    text = cli.good("explain", "dense", "--in", "qkv.safetensors", "--column-mass")
    assert "chosen" in text and "refuses: column mass" in text
    found = json.loads(cli.good("explain", "dense", "--in", "qkv.safetensors", "--column-mass",
                                "--json"))
    assert [i["name"] for i in found["implementations"] if i["chosen"]] == ["ref"]
    assert found["implementations"][0]["refusal"]
    told = json.loads(cli.good("explain", "block_mask", "--in", "qkv.safetensors", "--json"))
    assert "mask" in told["refusal"] and told["implementations"] == []


def test_explain_tells_costs(cli, files):
    files.qkv()
    planted = ["explain", "xattention", "--planted", "mixed", "--tokens", "2048", "--heads", "1"]
    text = cli.good(*planted, "--time")
    assert "estimate.antidiagonal" in text and "times as fast as exact" in text
    found = json.loads(cli.good(*planted, "--break-even", "--json"))
    assert [t["tokens"] for t in found["times"]] == [1024, 2048]
    for t in found["times"]:
        whole = t["planning_s"] + t["attention_s"]
        assert t["speedup"] == pytest.approx(t["exact_s"] / whole)
        assert max(t["stages_s"].values()) <= t["planning_s"]
    wins = [t["speedup"] > 1 for t in found["times"]]
    assert found["break_even_tokens"] == (0 if not wins[1] else 1024 if wins[0] else 2048)
    cli.good("explain", "dense", "--in", "qkv.safetensors", "--time")
    cli.refuses("explain", "dense", "--in", "qkv.safetensors", "--break-even",
                saying=["--break-even", "--planted"])
