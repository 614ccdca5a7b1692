"""The plug-in under llama.cpp's own programs: refusals, settings, and a part of ggml's suite."""
import os
import pathlib
import subprocess
import sys

import pytest

import ggml_suite

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("REGARD_BIN", ROOT / "build" / "bin"))
PLUGIN = BIN / "libggml-regard.so"
MODEL = ROOT / "build" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


def load(program, *args, **settings):
    env = {k: v for k, v in os.environ.items() if not k.startswith("REGARD_")}
    env.update(GGML_BACKEND_PATH=str(PLUGIN), **settings)
    return subprocess.run([str(BIN / program), *args], env=env, capture_output=True, text=True,
                          timeout=600)


def devices(**settings):
    """Loads every backend and runs nothing: a suite without a matching case."""
    return load("test-backend-ops", "test", "-o", "FLASH_ATTN_EXT", "-p", "^$", **settings)


def said(run):
    return [line for line in run.stderr.splitlines() if line.startswith("regard: ")]


def test_loads():
    run = devices()
    assert run.returncode == 0 and "Backend 2/2: REGARD" in run.stdout
    assert "Regard" in run.stdout and not said(run)


def test_other_ggml_is_refused_with_both_versions():
    run = devices(LD_PRELOAD=str(BIN / "libother-ggml.so"))
    assert "REGARD" not in run.stdout
    (line,) = said(run)
    assert "9.9.9 (commit 0123abc)" in line and "built for ggml 0." in line
    assert run.returncode == 0  # the program goes on without the plug-in


@pytest.mark.parametrize("name,value,wanted", [
    ("REGARD_METHOD", "xatention", "xattention"),
    ("REGARD_METHOD", "xattention:threshold=7", "threshold"),
    ("REGARD_METHOD", "xattention:depth=7", "depth"),
    ("REGARD_THREADS", "0", "1 to"),
    ("REGARD_THREADS", "many", "1 to"),
    ("REGARD_THREADS", "3x", "1 to"),
    ("REGARD_LOG", "everything", "plan"),
    ("REGARD_NUMERIC", "fp4", "accepted: f32, bf16, int8, int16"),
])
def test_bad_setting_is_one_clear_line(name, value, wanted):
    run = devices(**{name: value})
    assert "REGARD" not in run.stdout
    (line,) = said(run)
    assert name in line and value in line and wanted in line


def test_part_of_ggmls_suite():
    # Types, sinks, ALiBi, soft-cap, permuted, Dk != Dv, grouped heads, several sequences; `make
    # test-ggml` runs all 5,308.
    match = ("hsk=(64|128|192|576),.*kv=(113,nb=75|512,nb=3),mask=1,sinks=1,"
             ".*type_K=(f16|bf16|q8_0|iq4_nl)")
    passed, failed, refused, reasons, text, code = ggml_suite.run(BIN, match)
    assert not failed and code == 0, failed[:5]
    assert len(passed) >= 140
    assert not refused and "on ref" not in text


def test_refusals_have_reasons():
    passed, failed, refused, reasons, _, _ = ggml_suite.run(BIN, "type_K=q[12]_0|type_V=q[12]_0")
    assert not passed and not failed and len(refused) == 8
    assert set(reasons) == {"K of type q1_0", "K of type q2_0", "V of type q1_0", "V of type q2_0"}


@pytest.mark.parametrize("flash", ["on", "auto"])
def test_llama_bench(flash):
    run = load("llama-bench", "-m", str(MODEL), "-fa", flash, "-p", "256", "-n", "4", "-r", "1",
               "-t", "2", REGARD_LOG="plan", REGARD_METHOD="a_shape:n_local=64")
    assert run.returncode == 0, run.stderr
    assert "pp256" in run.stdout and "tg4" in run.stdout
    log = "\n".join(said(run))
    assert "a_shape:n_local=64" in log and "causal" in log and "1 queries" in log


def test_architectures():
    # Windows, soft-cap, sinks, ALiBi, latent heads, state-space layers between; `make test-archs`
    # runs all 133.
    if not (BIN / "test-archs").exists():
        pytest.skip("this llama.cpp has no test of architectures")
    match = "^(gemma2|gemma3|gpt-oss|mpt|bloom|deepseek2|minicpm3|falcon-h1|qwen3next|t5|llama4)$"
    run = subprocess.run([sys.executable, pathlib.Path(__file__).with_name("archs.py"), str(BIN),
                          "--match", match], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "11 architectures, " in run.stdout
