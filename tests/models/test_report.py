"""The report of a real run, opened in headless Chromium: every part is there, drawn and working."""
import base64
import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import urllib.parse

import pytest

from conftest import A_SHAPE, TOKENS, TWIN

LAYERS, HEADS = 30, 9

# Runs inside a copy of the page after its own script: looks at pixels, presses buttons, and leaves
# what it saw as JSON in the document.
PROBE = """<pre id="probe"></pre><script>
const seen = {};
const colours = id => {
  const c = document.getElementById(id), n = c.width;
  const copy = new OffscreenCanvas(n, n).getContext('2d', {willReadFrequently: true});
  copy.drawImage(c, 0, 0);
  const d = copy.getImageData(0, 0, n, n).data;
  const set = new Set(), above = d[4 * (n - 1) + 3];
  let reddish = 0;
  for (let i = 0; i < d.length; i += 4) {
    if (d[i + 3]) set.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);
    if (d[i + 3] && d[i] > d[i + 2] + 40) ++reddish;
  }
  return {size: n, count: set.size, above, reddish};
};
seen.exact = colours('map-exact');
seen.plan = colours('map-plan');
seen.missed = colours('map-missed');
document.getElementById('overlay').click();
seen.plain = colours('map-exact');
document.querySelectorAll('#heads button')[5].click();
seen.verdict = document.getElementById('verdict').textContent;
seen.pressed = [...document.querySelectorAll('#heads button')].map(b => b.getAttribute('aria-pressed'));
const cell = document.querySelectorAll('#density-plots figure')[0].querySelector('.cell.pictured');
cell.dispatchEvent(new MouseEvent('click', {bubbles: true}));
seen.afterCell = document.getElementById('verdict').textContent;
const box = document.getElementById('map-exact').getBoundingClientRect();
document.getElementById('map-exact').dispatchEvent(new PointerEvent('pointerdown',
  {clientX: box.left + 2, clientY: box.bottom - 3}));
seen.readout = document.getElementById('readout').textContent;
seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
seen.width = innerWidth;
document.getElementById('probe').textContent = JSON.stringify(seen);
if (parent !== window) parent.postMessage(JSON.stringify(seen), '*');
</script>"""

# Chromium's own windows are at least 500 wide: a phone is a frame.
PHONE = """<!doctype html><html data-ready="yes"><body><pre id="probe"></pre><script>
onmessage = e => { document.getElementById('probe').textContent = e.data; };
</script><iframe src="probed.html" width="375" height="700" style="border: 0"></iframe></body></html>"""


class Page(html.parser.HTMLParser):
    """Elements by id, with their attributes, text and the tags inside them."""

    VOID = {"meta", "input", "br", "link", "img"}

    def __init__(self, text):
        super().__init__()
        self.ids, self.open, self.root = {}, [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        node = {"tag": tag, "attrs": dict(attrs), "text": "", "inside": []}
        for outer in self.open:
            outer["inside"].append(node)
        if tag == "html":
            self.root = node["attrs"]
        if "id" in node["attrs"]:
            assert node["attrs"]["id"] not in self.ids, "an id twice"
            self.ids[node["attrs"]["id"]] = node
        if tag not in self.VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        while self.open and self.open.pop()["tag"] != tag:
            pass

    def handle_data(self, data):
        for outer in self.open:
            outer["text"] += data

    def count(self, element, tag=None, css_class=None):
        return sum((tag is None or n["tag"] == tag) and
                   (css_class is None or css_class in n["attrs"].get("class", "").split())
                   for n in self.ids[element]["inside"])


def chromium(url, *flags):
    program = shutil.which("chromium")
    assert program, "Debian's package chromium is needed"
    done = subprocess.run(
        [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000", *flags, url],
        capture_output=True, text=True, timeout=180)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not said, said
    return done.stdout


@pytest.fixture(scope="module")
def probed(small_run, tmp_path_factory):
    copy = tmp_path_factory.mktemp("page") / "probed.html"
    copy.write_text(small_run.report.read_text().replace("</body>", PROBE + "</body>"))
    return copy.as_uri()


def open_page(uri, *flags):
    page = Page(chromium(uri, "--dump-dom", *flags))
    assert page.root.get("data-ready") == "yes" and "data-error" not in page.root
    return page, json.loads(page.ids["probe"]["text"])


@pytest.fixture(scope="module")
def desktop(probed):
    return open_page(probed + "#method=0&layer=1&head=2", "--window-size=1280,900")


def test_one_file_without_network(small_run):
    text = small_run.report.read_text()
    assert len(text) < 4.2e6
    outside = re.findall(r"""(?:src|href)\s*=|@import|url\(|fetch\(|XMLHttp|https?://[^"' ]*""", text)
    assert set(outside) <= {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"\{\{\w+\}\}", text)


def test_every_part_is_there(desktop, small_run):
    page, _ = desktop
    rows = len(small_run.json["rows"])
    assert "1\u202f536 tokens" in page.ids["title"]["text"]
    assert page.count("headline", "div", "card") == 3
    assert page.count("table", "tr") == rows + 1
    assert page.count("tradeoff-plot", "g", "point") == rows
    assert page.count("time-plot", "rect") == 2 + 2 * rows
    for canvas in ("map-exact", "map-plan", "map-missed"):
        assert page.ids[canvas]["attrs"]["width"] == str(TOKENS // 16)
    assert page.count("heads", "button") == HEADS
    assert page.count("pick-method", "option") == 3
    assert page.count("pick-layer", "option") == 3
    assert page.count("pick-head", "option") == HEADS
    assert page.count("density-plots", "figure") == 3
    assert page.count("density-plots", "g", "cell") == 3 * LAYERS * HEADS
    assert page.count("scale", "rect") == 240
    assert "micro-batch of 256 tokens" in page.ids["how"]["text"]
    assert page.count("facts", "dd") >= 8


def test_table_says_what_the_json_says(desktop, small_run):
    text = desktop[0].ids["table"]["text"]
    for row in small_run.json["rows"]:
        assert f"{row['prefill_s']:.2f} s" in text and f"{row['attention_s']:.2f} s" in text
        assert f"{row['loss']:.4f}" in text and f"{row['peak_mib']:.0f} MiB" in text


def test_pictures_are_drawn_and_answer(desktop):
    page, seen = desktop
    assert seen["exact"]["size"] == TOKENS // 16
    assert seen["exact"]["count"] > 50  # a map of many shades
    assert 2 <= seen["plan"]["count"] < seen["exact"]["count"]  # kept, not kept, a few in between
    assert seen["missed"]["count"] > 20
    assert all(seen[m]["above"] == 0 for m in ("exact", "plan", "missed"))  # the future stays empty
    assert seen["exact"]["reddish"] > 0 and seen["plain"]["reddish"] == 0  # the overlay's switch
    assert "head 5" in seen["verdict"] and "keeps" in seen["verdict"]
    assert seen["pressed"] == ["true" if h == 5 else "false" for h in range(HEADS)]
    assert "layer 0, head 0" in seen["afterCell"]
    assert seen["readout"].startswith("Queries 1\u202f520–1\u202f535, keys 0–15:")


def test_phone_width_does_not_overflow(probed):
    phone = pathlib.Path(urllib.parse.urlparse(probed).path).with_name("phone.html")
    phone.write_text(PHONE)
    _, seen = open_page(phone.as_uri())
    assert seen["width"] == 375 and seen["overflow"] <= 0
    assert "head 5" in seen["verdict"]  # and it works there


def unpack(data, grid):
    """CellMap: the lower triangle, row by row."""
    flat, rows = base64.b64decode(data), []
    assert len(flat) == grid * (grid + 1) // 2
    for r in range(grid):
        start = r * (r + 1) // 2
        rows.append(flat[start:start + r + 1])
    return rows


@pytest.fixture(scope="module")
def data(small_run):
    text = small_run.report.read_text()
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.S).group(1))


def test_plan_maps_show_the_plan(data):
    pictures = data["pictures"]
    cell, grid = pictures["cell"], pictures["grid"]
    assert cell * grid == TOKENS and pictures["layers"] == [0, 14, 29]
    init, local = 64, 256
    by_name = {m["name"]: m["maps"] for m in pictures["methods"]}
    for head in by_name[A_SHAPE][1]:
        rows = unpack(head["map"], grid)
        for r in range(grid):
            for c in range(r + 1):
                near = (r + 1) * cell - 1 - c * cell < local       # its last query, its first key
                far = r * cell - ((c + 1) * cell - 1) >= local     # its first query, its last key
                if near or c * cell < init:
                    assert rows[r][c] == 255, (r, c)
                elif far:
                    assert rows[r][c] == 0, (r, c)
    for layer in by_name[TWIN]:
        for head in layer:
            assert set(base64.b64decode(head["map"])) == {255} and head["mass"] > 0.9999


def test_attention_maps_are_shares_that_sum_to_one(data):
    pictures = data["pictures"]
    floor = pictures["mass_floor"]
    share = [0.0] + [floor ** (1 - (b - 1) / 254) for b in range(1, 256)]
    for layer in pictures["exact"]:
        for head in layer:
            for row in unpack(head["map"], pictures["grid"]):
                # A byte is a step of 5.6 %, so each share is off by 2.8 % at most.
                assert sum(share[b] for b in row) == pytest.approx(1, abs=0.03)


def test_mass_kept_is_the_mass_under_the_plan(data):
    """From the maps alone: exact attention summed over what the plan keeps. The method's own run
    has slightly other activations above the first layer, so layer 0 is where both agree."""
    pictures = data["pictures"]
    grid, floor = pictures["grid"], pictures["mass_floor"]
    share = [0.0] + [floor ** (1 - (b - 1) / 254) for b in range(1, 256)]
    maps = {m["name"]: m["maps"] for m in pictures["methods"]}[A_SHAPE][0]
    for exact, plan in zip(pictures["exact"][0], maps):
        kept = sum(share[m] * k / 255 for ms, ks in
                   zip(unpack(exact["map"], grid), unpack(plan["map"], grid)) for m, k in zip(ms, ks))
        assert plan["mass"] == pytest.approx(kept / grid, abs=0.04)
