"""regard frontier, capture and search with a real model: rows, going on after a kill, refusals, and
the page in headless Chromium."""
import json
import math
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from conftest import BIN, MODEL, TEXT, regard
from test_report import PHONE, Page, chromium

TOKENS, UBATCH, SCORED = 1024, 256, 200
METHODS = "a_shape:n_init=64,n_local=256,xattention:block=64,threshold=2,alibi"
ROWS = ["a_shape:n_init=64,n_local=256", "xattention:block=64,threshold=2"]
QUICK = ["--lengths", TOKENS, "--ubatch", UBATCH, "--score", SCORED, "--threads", 2,
         "--planted-tokens", 512]


def lines_of(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


class Lab:
    """One search, and one frontier with its profile."""

    def __init__(self, folder):
        self.folder = folder
        self.text = folder / "part.txt"
        self.text.write_text(TEXT.read_text()[60_000:72_000])
        self.profile = folder / "profile.json"
        self.search = regard("search", MODEL, self.text, "--out", self.profile, "--ctx", TOKENS,
                             "--from", 0, "--ubatch", UBATCH, "--threads", 2, "--bound", 0.2, "--methods",
                             "a_shape:n_init=64,xattention:block=64")
        assert self.search.returncode == 0, self.search.stderr
        self.out = folder / "out"
        self.args = ["frontier", MODEL, self.text, "--methods", METHODS, "--out", self.out,
                     "--profile", self.profile, *QUICK]
        self.done = regard(*self.args)
        assert self.done.returncode == 0, self.done.stderr
        self.lines = lines_of(self.out)
        self.rows = {j["name"]: j for j in self.lines if j["kind"] == "row"}
        self.page = self.out / "frontier.html"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("lab"))


def test_rows_hold_every_number(lab):
    profile = f"@{lab.profile}"
    assert set(lab.rows) == {"llama.cpp", "exact", "alibi", profile, *ROWS}
    for name in [*ROWS, profile]:
        row = lab.rows[name]
        for field in ("density", "tile_density", "mass_kept", "loss_rise", "kl", "top1",
                      "attention_s", "prefill_s", "plan_s", "attention_speedup",
                      "attention_speedup_exact", "prefill_speedup"):
            assert isinstance(row[field], (int, float)) and math.isfinite(row[field]), field
        assert row["scored"] == SCORED and row["length"] == TOKENS
        assert 0.5 * row["attention_s"] < sum(row["stages"].values()) <= row["attention_s"] * 1.001
        assert {"attend", "lower", "mask"} <= set(row["stages"])
        assert len(row["recall"]["copies"]) == 7 and len(row["recall"]["needles"]) == 4
        assert len(row["density_by_head"]) == 30
        assert len(row["pictures"]["plans"]) == 12
        assert row["command"].startswith("regard run ") and row["command"].endswith(name)


def test_a_row_is_what_run_says(lab):
    """Density is of the plan alone; the loss is of the same positions."""
    command = lab.rows[ROWS[0]]["command"].split()[1:]
    done = regard(*command, "--json", lab.folder / "run.json")
    assert done.returncode == 0, done.stderr
    run = {r["name"]: r for r in json.loads((lab.folder / "run.json").read_text())["rows"]}
    for name in ("exact", ROWS[0]):
        for field in ("loss", "density", "kl", "top1", "loss_rise"):
            assert run[name][field] == pytest.approx(lab.rows[name][field], abs=1e-9), field


def test_dense_twin_keeps_everything(lab):
    twin, exact = lab.rows[ROWS[1]], lab.rows["exact"]
    assert twin["density"] == 1 and twin["mass_kept"] == pytest.approx(1, abs=1e-5)
    assert abs(twin["loss_rise"]) < 0.02
    assert twin["recall"]["copy_loss"] == pytest.approx(exact["recall"]["copy_loss"], abs=0.05)


def test_recall_sees_what_the_loss_hides(lab):
    """Exact attention finds the copies; a window that cannot see them does not."""
    exact, window = lab.rows["exact"], lab.rows[ROWS[0]]
    seen, unseen = exact["recall"], exact["recall_without"]
    assert seen["copy_loss"] < unseen["copy_loss"] - 0.5
    far = slice(2, 7)  # 384 tokens and more; the window is 256
    mean = lambda r: sum(c["loss"] for c in r["copies"][far]) / 5
    assert mean(window["recall"]) > mean(seen) + 0.7 * (mean(unseen) - mean(seen))
    assert [c["distance"] for c in seen["copies"]] == [TOKENS * k // 8 for k in range(1, 8)]


def test_planted_rows_lie_under_the_best_curve(lab):
    best = next(j for j in lab.lines if j["kind"] == "best")
    curves = {i["input"]: i["pairs"] for i in best["inputs"]}
    assert set(curves) == {"band", "clusters", "grid", "heavy_tail", "needle", "noise", "sinks"}
    planted = [j for j in lab.lines if j["kind"] == "planted"]
    assert {j["name"] for j in planted} == {*ROWS, "alibi"}
    checked = 0
    for curve in curves.values():
        assert all(a[0] < b[0] and a[1] <= b[1] + 1e-9 for a, b in zip(curve, curve[1:]))
        assert curve[-1] == pytest.approx([1, 1], abs=1e-4)
    for j in planted:
        for p in j["points"]:
            above = [m for d, m in curves[p["input"]] if d >= p["density"] - 1e-9]
            # The curve is of head 0, the row of both heads, which differ by their noise.
            assert p["mass"] <= above[0] + 0.03, (j["name"], p)
            checked += 1
    assert checked == 3 * 7


def test_the_profile_is_used_head_by_head(lab):
    profile = json.loads(lab.profile.read_text())
    assert profile["regard_profile"] == 1 and len(profile["layers"]) == 30
    row = lab.rows[f"@{lab.profile}"]
    assert not row["exact_calls"] and 0 < row["density"] < 1
    dense = [profile["methods"].index("dense")] if "dense" in profile["methods"] else []
    seen = set()
    for layer, heads in profile["layers"].items():
        for head, m in enumerate(heads):
            density = row["density_by_head"][int(layer)][head]
            seen.add(m)
            want = 1 if m in dense else 0
            assert want - 1e-4 < density < 1 + 1e-4, (layer, head, profile["methods"][m], density)
    assert len(seen) > 1  # heads do differ
    assert "x less attention time" in lab.search.stdout


def test_a_profile_in_an_unmodified_program(lab):
    """REGARD_PROFILE does in llama-bench what --profile does here; a bad one is one line."""
    bench = BIN / "llama-bench"
    if not bench.exists():
        pytest.skip("llama-bench is not built")
    run = lambda profile: subprocess.run(
        [bench, "-m", MODEL, "-fa", "1", "-p", "1024", "-n", "0", "-r", "1", "-t", "2"],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "GGML_BACKEND_PATH": str(BIN / "libggml-regard.so"),
             "REGARD_PROFILE": str(profile), "REGARD_LOG": "plan"})
    assert f"profile {lab.profile}" in run(lab.profile).stderr
    assert "REGARD_PROFILE" in run("nothing.json").stderr


def test_a_second_run_only_writes_the_page(lab):
    before = (lab.out / "rows.jsonl").read_bytes()
    lab.page.unlink()
    done = regard(*lab.args)
    assert done.returncode == 0 and done.stdout == f"wrote {lab.page}\n"
    assert (lab.out / "rows.jsonl").read_bytes() == before and lab.page.exists()


def test_kill_and_go_on(lab, tmp_path):
    out = tmp_path / "out"
    args = [str(a) if a != lab.out else str(out) for a in lab.args]
    process = subprocess.Popen([BIN / "regard", *args], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "llama.cpp and exact" in line:
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = lines_of(out)
    with open(out / "rows.jsonl", "a") as f:
        f.write('{"kind": "row", "name": "half')
    done = regard(*args)
    assert done.returncode == 0
    assert "cut short" in done.stderr and len(done.stderr.splitlines()) == 1
    lines = lines_of(out)
    assert lines[:len(kept)] == kept
    names = [j["name"] for j in lines if j["kind"] == "row"]
    assert sorted(names) == sorted(lab.rows)  # each once
    for name in ROWS:  # the same numbers as without the kill
        row = next(j for j in lines if j.get("name") == name and j["kind"] == "row")
        for field in ("loss", "kl", "density", "mass_kept", "recall"):
            assert row[field] == lab.rows[name][field], field


def test_the_budget_ends_a_run_and_the_next_goes_on(lab, tmp_path):
    out = tmp_path / "out"
    args = [a if a != lab.out else out for a in lab.args]
    done = regard(*args, "--budget", 0.0001)
    assert done.returncode == 0 and "the budget is spent" in done.stdout
    assert len([j for j in lines_of(out) if j["kind"] != "frontier"]) <= 1
    assert (out / "frontier.html").exists()


def test_rows_of_another_run_are_not_mixed(lab):
    before = (lab.out / "rows.jsonl").read_bytes()
    for change, word in ((["--seed", 3], "seed"), (["--ubatch", 128], "ubatch"),
                         (["--threads", 1], "threads")):
        args = list(lab.args)
        if change[0] in args:
            args[args.index(change[0]) + 1] = change[1]
        else:
            args += change
        done = regard(*args)
        assert done.returncode == 1 and word in done.stderr and "another --out" in done.stderr
    assert (lab.out / "rows.jsonl").read_bytes() == before


REFUSED = [
    (["frontier", "nothing.gguf", "TEXT", "--out", "o"], ["nothing.gguf", "No such file"]),
    (["frontier", "MODEL", "nothing.txt", "--out", "o"], ["nothing.txt", "No such file"]),
    (["frontier", "MODEL", "TEXT", "--out", "o", "--methods", "xatention"], ["xatention"]),
    (["frontier", "MODEL", "TEXT", "--out", "o", "--methods", "a_shape:n_local=0"], ["n_local"]),
    (["frontier", "MODEL", "TEXT", "--out", "o", "--lengths", "2q"], ["--lengths '2q'"]),
    (["frontier", "MODEL", "TEXT", "--out", "o", "--lengths", "512"], ["two micro-batches"]),
    (["frontier", "MODEL", "TEXT", "--out", "o", "--budget", "-1"], ["--budget -1"]),
    (["frontier", "MODEL", "TEXT", "--out", "TEXT"], ["cannot be made"]),
    (["frontier", "MODEL", "TEXT", "--out", "/proc/lab"], ["/proc/lab"]),
    (["frontier", "MODEL", "TEXT", "--out", "o", "--profile", "no.json"], ["no.json"]),
    (["frontier", "MODEL", "TEXT"], ["--out"]),
    (["capture", "MODEL", "TEXT", "--out", "o", "--layers", "30"], ["--layers '30'", "0 to 29"]),
    (["capture", "MODEL", "TEXT", "--out", "o", "--layers", "3-"], ["--layers"]),
    (["capture", "MODEL", "TEXT", "--out", "o", "--layers", "0", "--heads", "9"], ["--heads '9'"]),
    (["capture", "MODEL", "TEXT", "--out", "o", "--layers", "0", "--ctx", "9000"], ["8192"]),
    (["capture", "MODEL", "TEXT", "--out", "/proc/x", "--layers", "0"], ["/proc/x"]),
    (["capture", "nothing.gguf", "TEXT", "--out", "o", "--layers", "0"], ["nothing.gguf"]),
    (["search", "MODEL", "TEXT", "--out", "no/p.json"], ["no/p.json", "cannot be written"]),
    (["search", "MODEL", "TEXT", "--out", "TEXT"], ["would replace an input"]),
    (["search", "MODEL", "TEXT", "--out", "p.json", "--bound", "-1"], ["--bound -1"]),
    (["search", "MODEL", "TEXT", "--out", "p.json", "--methods", "dense"], ["names none"]),
    (["search", "MODEL", "TEXT", "--out", "p.json", "--methods", "nix"], ["nix"]),
    (["run", "MODEL", "TEXT", "--profile", "no.json"], ["no.json", "cannot be read"]),
]


@pytest.mark.parametrize("args,words", REFUSED, ids=[" ".join(a) for a, _ in REFUSED])
def test_bad_input_is_one_clear_line(lab, tmp_path, args, words):
    (tmp_path / "TEXT").write_text(lab.text.read_text())
    done = regard(*[MODEL if a == "MODEL" else a for a in args], cwd=tmp_path)
    assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert not list(tmp_path.glob("o/rows.jsonl")) and not list(tmp_path.glob("*.json"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_leaves_whole_lines(lab, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "none", disk]).returncode:
        pytest.skip("no mount here")
    try:
        args = [a if a != lab.out else disk / "out" for a in lab.args]
        done = regard(*args)
        assert done.returncode == 1 and "No space left" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        text = (disk / "out" / "rows.jsonl").read_text()
        assert text.endswith("\n") and all(json.loads(line) for line in text.splitlines())
    finally:
        subprocess.run(["umount", disk], check=True)


# --- capture ---------------------------------------------------------------------------------------

def test_capture_takes_a_cache_in_f32(lab, tmp_path):
    done = regard("capture", MODEL, lab.text, "--layers", "3", "--ctx", 128, "--ubatch", 64, "--kv",
                  "f32", "--out", tmp_path / "qkv", "--threads", 2)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    manifest = json.loads((tmp_path / "qkv" / "manifest.json").read_text())
    assert manifest["layers"][0]["tensors"]["k"] == "f16[1,3,128,64]"  # as the attention reads them


def test_capture_is_read_by_plan_and_explain(lab, tmp_path):
    out = tmp_path / "qkv"
    args = ["capture", MODEL, lab.text, "--layers", "0,14", "--ctx", 512, "--ubatch", 128, "--out",
            out, "--threads", 2]
    done = regard(*args)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "MiB a layer" in done.stdout.splitlines()[0] and "without q" not in done.stdout
    manifest = json.loads((out / "manifest.json").read_text())
    assert [l["layer"] for l in manifest["layers"]] == [0, 14] and len(manifest["tokens"]) == 512
    tensors = manifest["layers"][1]["tensors"]
    assert tensors["q"] == "f32[1,9,512,64]" and tensors["k"] == "f16[1,3,512,64]"
    assert tensors["q_before"] == "f32[1,9,512,64]" and tensors["k_before"] == "f32[1,3,512,64]"
    text = regard("plan", "xattention:block=64", "--in", out / "layer-014.safetensors").stdout
    assert "density" in text
    told = regard("explain", "dense", "--in", out / "layer-000.safetensors").stdout
    assert "q f32[1,9,512,64]" in told and "chosen" in told
    times = {f: f.stat().st_mtime_ns for f in out.glob("layer-*")}
    (out / "layer-014.safetensors").unlink()
    assert regard(*args).returncode == 0  # layer 14 again, layer 0 kept
    kept = out / "layer-000.safetensors"
    assert kept.stat().st_mtime_ns == times[kept]
    other = regard(*[256 if a == 512 else a for a in args])
    assert other.returncode == 1 and "another run" in other.stderr


def test_capture_rotates_as_the_model_does(lab, tmp_path):
    """q and k after rotation are those before, turned: the first position stays, others do not, and
    no row's norm changes (k comes from the cache, in f16)."""
    numpy = pytest.importorskip("numpy")
    out = tmp_path / "qkv"
    done = regard("capture", MODEL, lab.text, "--layers", "3", "--heads", "1,8", "--ctx", 256,
                  "--ubatch", 128, "--out", out, "--threads", 2)
    assert done.returncode == 0, done.stderr
    raw = (out / "layer-003.safetensors").read_bytes()
    n = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + n])
    types = {"F32": "<f4", "F16": "<f2"}
    x = {k: numpy.frombuffer(raw[8 + n:][slice(*h["data_offsets"])], types[h["dtype"]])
            .reshape(h["shape"]).astype("f8") for k, h in header.items() if k != "__metadata__"}
    assert x["k"].shape == (1, 2, 256, 64)
    for name in "qk":
        after, before = x[name], x[name + "_before"]
        assert numpy.abs(after - before).max() > 0.1  # it does turn
        # Half an ulp of f16, for k, and what the rotation's own f32 leaves.
        assert numpy.allclose(after[:, :, 0], before[:, :, 0], rtol=2**-11, atol=1e-5)
        assert numpy.allclose((after ** 2).sum(-1), (before ** 2).sum(-1), rtol=2**-10)


# --- the page --------------------------------------------------------------------------------------

PROBE = """<pre id="probe"></pre><script>
const seen = {};
const row = name => document.querySelector(`#frontier-plot .point[data-row="${CSS.escape(name)}"]`);
seen.points = document.querySelectorAll('#frontier-plot .point').length;
seen.stairs = document.getElementById('stairs').getAttribute('points').split(' ').length;
row('NAME').dispatchEvent(new MouseEvent('click', {bubbles: true}));
seen.chosen = document.getElementById('chosen').textContent;
seen.command = document.getElementById('command').textContent;
seen.cells = document.querySelectorAll('#density-plot .cell').length;
seen.plans = document.querySelectorAll('#plans canvas').length;
const c = document.querySelector('#plans canvas');
const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
seen.shades = new Set(Array.from({length: d.length / 4}, (_, i) => d[4 * i] << 16 | d[4 * i + 1] << 8 | d[4 * i + 2])).size;
const order = () => [...document.querySelectorAll('#table tbody tr')].map(r => r.dataset.row);
document.querySelectorAll('#table th button')[1].click();
seen.byRise = order();
document.querySelectorAll('#table th button')[1].click();
seen.byRiseDown = order();
document.getElementById('pick-x').value = 'density';
document.getElementById('pick-x').dispatchEvent(new Event('change'));
seen.axis = document.querySelector('#frontier-plot svg').getAttribute('aria-label');
document.querySelector('#families input[value=pattern]').click();
seen.filtered = document.querySelectorAll('#frontier-plot .point').length;
seen.plantedFiltered = document.querySelectorAll('.planted').length;
document.querySelector('#families input[value=pattern]').click();
seen.recall = document.querySelectorAll('#recall-plot polyline').length;
seen.needles = document.querySelectorAll('#needles tbody tr').length;
seen.stages = [...new Set([...document.querySelectorAll('#time-plot .stage')].map(r => r.dataset.stage))];
seen.planted = document.querySelectorAll('#planted-plots figure').length;
seen.shapes = new Set([...document.querySelectorAll('#families label svg')].map(s => s.firstChild.tagName + (s.firstChild.getAttribute('points') || ''))).size;
seen.hash = location.hash;
seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
seen.width = innerWidth;
document.getElementById('probe').textContent = JSON.stringify(seen);
if (parent !== window) parent.postMessage(JSON.stringify(seen), '*');
</script>"""


@pytest.fixture(scope="module")
def probed(lab, tmp_path_factory):
    copy = tmp_path_factory.mktemp("page") / "probed.html"
    probe = PROBE.replace("NAME", ROWS[0])
    copy.write_text(lab.page.read_text().replace("</body>", probe + "</body>"))
    return copy


def look(uri, *flags):
    page = Page(chromium(uri, "--dump-dom", *flags))
    assert page.root.get("data-ready") == "yes" and "data-error" not in page.root, page.root
    return page, json.loads(page.ids["probe"]["text"])


def test_page_is_one_file_without_network(lab):
    text = lab.page.read_text()
    outside = re.findall(r"""(?:src|href)\s*=|@import|url\((?!#)|fetch\(|XMLHttp|https?://[^"' ]*""",
                         text)
    assert set(outside) <= {"http://www.w3.org/2000/svg", "url("}
    assert not re.search(r"\{\{\w+\}\}", text)


def test_page_shows_and_answers(probed, lab):
    page, seen = look(probed.as_uri(), "--window-size=1280,900")
    assert seen["points"] == len(lab.rows) and seen["stairs"] >= 1
    assert ROWS[0] in seen["chosen"] and seen["command"] == lab.rows[ROWS[0]]["command"]
    assert seen["cells"] == 30 * 9 and seen["plans"] == 12 and seen["shades"] > 2
    rise = lambda name: lab.rows[name].get("loss_rise", math.inf)
    known = [n for n in seen["byRise"] if "loss_rise" in lab.rows[n]]
    assert known == sorted(known, key=rise)
    assert [n for n in seen["byRiseDown"] if n in known] == known[::-1]
    assert "pairs read" in seen["axis"] and "x=density" in seen["hash"]
    assert seen["filtered"] == len(lab.rows) - 1 and seen["planted"] == 7
    assert seen["plantedFiltered"] == 2 * 7
    assert seen["recall"] >= 3 and seen["needles"] >= 3
    assert {"attend", "mask", "lower"} <= set(seen["stages"])
    assert seen["shapes"] >= 3  # families differ in shape, not only in colour
    assert page.count("facts", "dd") >= 9


def test_page_on_a_phone(probed):
    phone = probed.with_name("phone.html")
    phone.write_text(PHONE)
    _, seen = look(phone.as_uri())
    assert seen["width"] == 375 and seen["overflow"] <= 0
    assert ROWS[0] in seen["chosen"]
