"""Every kind of page in Chromium: no errors, a phone's width, dark mode, print, sorting."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), "")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--virtual-time-budget=8000"),
)
PHONE = 390  # px
PAGES = {
    "dataset": "datasets/p/report.html",
    "generator": "runs/exp/demo/gan/default-fold0-seed0/evaluation/evaluation.html",
    "classifier": "runs/exp/demo/trials/fold0/synthetic-seed0-gan0/evaluation/evaluation.html",
    "experiment": "runs/exp/demo/report.html",
    "gallery": "runs/index.html",
}
LOOK = """
const shown = one => getComputedStyle(one);
const luminance = colour =>
  colour.match(/[0-9.]+/g).slice(0, 3).reduce((sum, one) => sum + one / 765, 0);
const saved = one => {
  one.onclick = event => event.preventDefault();
  one.click();
  return one.href.slice(0, 5);
};
const report = {
  wide: document.documentElement.scrollWidth,
  paper: luminance(shown(document.body).backgroundColor),
  ink: luminance(shown(document.body).color),
  words: [...document.querySelectorAll("svg text")].filter(one => one.getClientRects().length)
    .map(one => luminance(shown(one).fill)),
  anchors: [...document.querySelectorAll("a[href^='#']")].filter(one => !one.dataset.save)
    .every(one => document.getElementById(decodeURIComponent(one.hash.slice(1)))),
  tables: document.querySelectorAll("table").length,
  sheets: document.querySelectorAll("a[download$='.csv']").length,
  figures: document.querySelectorAll("figure.drawing").length,
  saved: [...document.querySelectorAll("a[data-save]")].map(saved),
};
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every command that writes a page has run, in small."""
    folder = tmp_path_factory.mktemp("pages")
    trial, generator = (Path(PAGES[name]).parents[1] for name in ("classifier", "generator"))
    quiet = ("--tracking", "none")
    for words in (
        ("data.prepare", "--patients", "120", "--size", "64", "--out", "datasets/p"),
        ("data.report", "datasets/p"),
        *[("experiments.run", "demo", "--smoke", "--data", "datasets/p", *quiet)],
        ("gan.evaluate", "--generator", str(generator), "--network", "imagenet", *quiet),
        ("classifier.evaluate", "--run", str(trial), "--replicates", "200", *quiet),
        ("experiments.gallery",),
    ):
        command = [sys.executable, "-m", *words]
        known = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
    return folder


def browse(page: Path, tmp_path: Path, *flags: str) -> tuple[str, list[str]]:
    """The DOM after the scripts ran, and what they said on the console."""
    address = f"file://{page}" if isinstance(page, Path) else page
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [CHROMIUM, *FLAGS, profile, *flags, "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, said


def look(page: Path, tmp_path: Path, width: int, dark: bool = False) -> dict:
    """What LOOK reports of a page in a frame of a width: a window is no narrower than 500 px."""
    copy, frame = tmp_path / "copy.html", tmp_path / "frame.html"
    report = "parent.postMessage(JSON.stringify(report), '*');"
    copy.write_text(f"{page.read_text()}<script>{{{LOOK}{report}}}</script>")
    frame.write_text(
        f'<iframe src="file://{copy}" style="width:{width}px;height:900px;border:0"></iframe>'
        "<script>addEventListener('message', one => document.title = one.data)</script>"
    )
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    dom, said = browse(frame, tmp_path, scheme, "--window-size=1400,1000")
    assert not said
    title = re.search("<title>(.*?)</title>", dom)
    assert title is not None
    return json.loads(html.unescape(title[1]))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone_and_everything_on_it_can_be_saved(work, tmp_path, name):
    seen = look(work / PAGES[name], tmp_path, PHONE)
    assert seen["wide"] <= PHONE
    assert seen["anchors"]
    assert seen["sheets"] == seen["tables"] > 0
    assert len(seen["saved"]) >= seen["figures"]
    assert set(seen["saved"]) <= {"blob:", "data:"}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_legible_in_the_dark(work, tmp_path, name):
    for dark in (False, True):
        seen = look(work / PAGES[name], tmp_path, 1280, dark)
        assert seen["wide"] <= 1280
        assert (seen["paper"] < 0.2) == dark
        assert abs(seen["ink"] - seen["paper"]) > 0.6
        on_maps = [word for word in seen["words"] if abs(word - seen["paper"]) < 0.3]
        assert len(on_maps) <= len(seen["words"]) / 3  # words on a coloured map stay as they are


@pytest.mark.parametrize("name", PAGES)
def test_on_paper_foldouts_are_open(work, tmp_path, name):
    copy = tmp_path / "copy.html"
    then = "dispatchEvent(new Event('beforeprint'));"
    then += "document.title = document.querySelectorAll('details:not([open])').length"
    copy.write_text(f"{(work / PAGES[name]).read_text()}<script>{then}</script>")
    dom, said = browse(copy, tmp_path)
    assert not said
    assert "<title>0</title>" in dom


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(work, tmp_path, name):
    """Deque's axe-core, foldouts open, in light and in the dark."""
    axe = files("axe_core_python").joinpath("axe.min.js").read_text()
    then = """
    document.querySelectorAll("details").forEach(one => { one.open = true; });
    axe.run(document).then(found => {
      document.title = JSON.stringify(found.violations.map(
        one => [one.id, one.impact, one.nodes[0].html]));
    });"""
    copy = tmp_path / "copy.html"
    scripts = f"<script>{axe}</script><script>{then}</script>"
    copy.write_text((work / PAGES[name]).read_text() + scripts)
    for scheme in (0, 1):
        dom, _ = browse(copy, tmp_path, f"--blink-settings=preferredColorScheme={scheme}")
        title = re.search("<title>(.*?)</title>", dom, re.DOTALL)
        assert title is not None
        found = json.loads(html.unescape(title[1]))
        assert [one for one in found if one[1] in ("serious", "critical")] == []


def rows(dom: str, section: str) -> list[list[str]]:
    """Cells of the rows of a section that are shown, in their order."""
    body = dom.split(f'<h2 id="{section}">')[1].split("<tbody>")[1].split("</tbody>")[0]
    shown = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)  # others have an attribute: hidden
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in shown]
    return [[html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in row] for row in cells]


def test_the_gallery_is_sorted_and_filtered_by_its_address(work, tmp_path):
    page = work / PAGES["gallery"]
    dom, said = browse(page, tmp_path)
    assert not said
    every = rows(dom, "classifiers")
    column = 7  # the AUC
    assert len(every) == 6  # three arms, two seeds
    for sign, falling in (("", False), ("-", True)):
        address = f"file://{page}?sort={sign}classifiers.{column}"
        found = rows(browse(address, tmp_path)[0], "classifiers")
        values = [float(row[column]) for row in found]
        assert values == sorted(values, reverse=falling)
        assert sorted(found) == sorted(every)
    address = f"file://{page}?find=OVERSAMPLED%20trials"
    dom, said = browse(address, tmp_path)
    assert not said
    found = rows(dom, "classifiers")
    assert len(found) == 2
    assert all("real_oversampled" in row[0] for row in found)
    assert rows(dom, "datasets") == []


def test_the_gallery_is_sorted_by_a_click(work, tmp_path):
    copy = tmp_path / "copy.html"
    click = "document.querySelectorAll('#classifiers')[0].closest('section')"
    click += ".querySelectorAll('th button')[7].click()"
    copy.write_text(f"{(work / PAGES['gallery']).read_text()}<script>{{{click}}}</script>")
    dom, said = browse(copy, tmp_path)
    assert not said
    values = [float(row[7]) for row in rows(dom, "classifiers")]
    assert values == sorted(values)
    assert 'aria-sort="ascending"' in dom
