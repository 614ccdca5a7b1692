"""One small run of a real model, shared by the tests of its table and of its report."""
import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("REGARD_BIN", ROOT / "build" / "bin"))
MODELS = pathlib.Path(os.environ.get("REGARD_MODELS", ROOT / "build" / "models"))
MODEL = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = MODELS / "debian-reference.txt"

TOKENS, UBATCH, SCORED = 1536, 256, 400
A_SHAPE = "a_shape:n_init=64,n_local=256"
# Dense twins: the same pairs as exact attention, by another kernel and by the same one.
TWIN = "xattention:block=64,threshold=2"
SAME = "a_shape:n_local=100000"


def regard(*args, **more):
    return subprocess.run([str(BIN / "regard"), *map(str, args)], capture_output=True, text=True,
                          timeout=900, **more)


class SmallRun:
    def __init__(self, folder):
        self.text = folder / "part.txt"
        # Prose from inside the document: its first pages are a table of contents.
        self.text.write_text(TEXT.read_text()[60_000:72_000])
        self.json_file, self.report = folder / "run.json", folder / "run.html"
        self.done = regard("run", MODEL, self.text, "--ctx", TOKENS, "--ubatch", UBATCH, "--score",
                           SCORED, "--threads", 2, "--method", A_SHAPE, "--method", TWIN,
                           "--method", SAME, "--json", self.json_file, "--report", self.report,
                           "--picture-layers", 3)
        assert self.done.returncode == 0, self.done.stderr
        self.json = json.loads(self.json_file.read_text())
        self.rows = {row["name"]: row for row in self.json["rows"]}


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    return SmallRun(tmp_path_factory.mktemp("run"))
