"""What keeps the repository in shape: layers, formatting, line budgets, forbidden words."""
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import check_layers  # noqa: E402


def sources(*suffixes):
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True,
                            capture_output=True)
    names = listed.stdout.split() if listed.returncode == 0 else []
    files = [ROOT / n for n in names] or [f for f in ROOT.rglob("*") if "build" not in f.parts]
    return [f for f in files if f.suffix in suffixes and f.is_file()]


def test_layers():
    assert list(check_layers.violations(ROOT)) == []


def test_layer_check_can_fail(tmp_path):
    bad = tmp_path / "src" / "core" / "a.h"
    bad.parent.mkdir(parents=True)
    bad.write_text('#include "plan/b.h"\n#include "ggml.h"\n')
    (tmp_path / "src" / "plan").mkdir()
    (tmp_path / "src" / "plan" / "b.h").write_text("")
    assert len(list(check_layers.violations(tmp_path))) == 2


def test_clang_format():
    tool = shutil.which("clang-format")
    if not tool:
        pytest.fail("clang-format is missing; `make test` installs it")
    files = [str(f) for f in sources(".h", ".cc", ".cu")]
    run = subprocess.run([tool, "--dry-run", "--Werror", *files], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[:2000]


BUDGET = [("src/recipes/*/*.cc", 80), ("include/**/*.h", 200), ("src/**/*.h", 200),
          ("src/cpu/*", 400), ("tests/oracles/*.py", 48)]
# HyperAttention's oracle holds four algorithms: hash, sort, sample, and halving for causality. The
# Hopper kernel's two halves are kernel bodies, which "-inl." says elsewhere.
LONGER = {"tests/oracles/hyper.py": 85, "src/cuda/sm90/consumer.h": 400,
          "src/cuda/sm90/producer.h": 400}


@pytest.mark.parametrize("pattern,limit", BUDGET)
def test_line_budget(pattern, limit):
    long = {str(f.relative_to(ROOT)): n for f in ROOT.glob(pattern) if f.is_file()
            for n in [len(f.read_text().splitlines())]
            if n > LONGER.get(str(f.relative_to(ROOT)), 400 if "-inl." in f.name else limit)}
    assert not long  # a kernel's body ("-inl.h") has a kernel file's 400 lines


def test_no_machine_paths_or_hosts():
    word = re.compile(r"/work/|pypi\.org|deb\.debian\.org|huggingface\.co/")
    found = [str(f.relative_to(ROOT)) for f in sources(".h", ".cc", ".py", ".md", ".txt", ".sh",
                                                       ".cmake", ".js", ".html")
             if f != pathlib.Path(__file__).resolve() and word.search(f.read_text())]
    assert not found
