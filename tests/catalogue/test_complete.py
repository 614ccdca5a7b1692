"""The catalogue is whole: files, lines, oracles, records and pages agree."""
import json
import re
import subprocess
import sys

import pytest
import regard
from catalogue import NAMES, RECORDS, ROOT

RECIPES = ROOT / "src" / "recipes"
ORACLES = ROOT / "tests" / "oracles"
LINES = re.findall(r"^REGARD_RECIPE\((\w+), (\w+)\)$", (RECIPES / "catalogue.def").read_text(),
                   re.M)


def test_every_file_has_its_line_and_every_line_its_file():
    files = {(f.parent.name, f.stem) for f in RECIPES.glob("*/*.cc")}
    assert files == set(LINES)
    assert len(LINES) == len(set(LINES))


def test_lines_are_sorted_by_name_and_are_the_methods():
    names = [name for _, name in LINES]
    assert names == sorted(names) == NAMES


@pytest.mark.parametrize("family,name", LINES)
def test_every_record_is_full(family, name):
    record = RECORDS[name]
    assert record["family"] == family
    for field in ("title", "paper", "summary", "when", "cost"):
        assert len(record[field]) > 10, field
    assert 2014 <= record["year"] <= 2030
    assert record["phase"] in ("prefill", "decode", "train", "any")
    assert set(record["needs"]) <= {"causal", "square", "single", "weights"}
    assert all(p["doc"] for p in record["params"])


@pytest.mark.parametrize("family,name", LINES)
def test_every_method_has_an_oracle_written_without_our_code(family, name):
    text = (ORACLES / f"{name}.py").read_text()
    assert "def kept(" in text
    assert "regard" not in text
    assert text.startswith('"""')


def test_every_oracle_belongs_to_a_method():
    assert {f.stem for f in ORACLES.glob("*.py")} == set(NAMES)


@pytest.mark.parametrize("family,name", LINES)
def test_recipes_hold_no_loop(family, name):
    text = (RECIPES / family / f"{name}.cc").read_text()
    assert not re.search(r"\b(for|while|do)\b\s*[({]", text)


def test_every_method_has_its_picture():
    """Drawn by tools/gen_plan_pictures.py; small enough to keep."""
    plans = ROOT / "docs" / "images" / "plans"
    sizes = {f.stem: f.stat().st_size for f in plans.glob("*.png")}
    assert sorted(sizes) == NAMES == sorted(json.loads((plans / "plans.json").read_text()))
    assert sum(sizes.values()) < 1.5e6


def test_every_method_has_its_page(tmp_path):
    generator = ROOT / "tools" / "gen_method_docs.py"
    subprocess.run([sys.executable, generator, "--out", tmp_path], check=True)
    index = (tmp_path / "README.md").read_text()
    for name in NAMES:
        page = (tmp_path / f"{name}.md").read_text()
        assert f"({name}.md)" in index
        assert f"images/plans/{name}.png)" in page
        for p in regard.describe(name)["params"]:
            assert f"`{p['name']}`" in page
        assert "None" not in page and RECORDS[name]["paper"] in page
