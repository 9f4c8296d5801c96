"""The gallery of runs: what is shown of each kind, and that nothing in a folder stops it."""

import os
import re
import subprocess
import sys
import time
import tomllib
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from gallery_runs import COMPARISON, write, write_classifier, write_experiment, write_runs

from dermsynth import finished
from dermsynth.errors import UserError
from dermsynth.finished import GROUP
from dermsynth.folders import whole_folder
from dermsynth.manifest import begin, seal
from experiments import gallery, thumbnails
from experiments.gallery import GalleryOptions, update, update_after, write_gallery


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return write_runs(tmp_path)


def rows_of(page: str, section: str) -> dict[str, list[str]]:
    """Cells of a section's table, by the first one."""
    table = page.split(f'<h2 id="{section}">')[1].split("</table>")[0]
    rows = re.findall(r"<tr>(<td.*?)</tr>", table.split("<tbody>")[1], re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]
    plain = [[words(cell) for cell in row] for row in cells]
    return {row[0]: row[1:] for row in plain}


def words(cell: str) -> str:
    return unescape(" ".join(re.sub(r"<[^>]*>", " ", cell).split()))


def test_every_kind_is_shown_with_its_figures(runs: Path) -> None:
    page = update(runs).read_text()
    assert "1 experiment, 1 generator, 1 pool, 2 classifiers, 1 dataset." in words(page)
    experiment = rows_of(page, "experiments")["exp/one"]
    assert experiment[:2] == ["helps", "+0.031 [+0.012, +0.050]"]
    assert experiment[2] == "synthetic, real"
    assert experiment[4:] == ["ham", "2026-01-02 03:04:05"]
    generator = rows_of(page, "generators")["gan/g"]
    assert generator[1:] == [
        *("lesiongan", "ham", "0", "3", "12.5", "2", "33", "1", "0.50", "0.25", "blurred")
    ]
    pool = rows_of(page, "pools")
    assert list(pool.values()) == [
        ["declared", *"–––", "500", "128", *"––––", "not evaluated"]  # scores of nothing
    ]
    classifiers = rows_of(page, "classifiers")
    assert classifiers["cls/mine"][:9] == [
        *("b3", "18", "ham", "0", "7", "0.3", "0.700", "test", "0.800")
    ]
    assert "exp/one/trials/fold0/real-seed0 part of one" in classifiers
    dataset = next(iter(rows_of(page, "datasets").values()))
    assert dataset == ["ham10000", "1234", "56", "melanoma", "700", "1", "–"]


def test_links_lead_to_the_pages_from_where_the_gallery_lies(runs: Path, tmp_path: Path) -> None:
    write_experiment(runs / "exp/a b#1?")
    for out in (runs / "index.html", tmp_path / "elsewhere/all.html"):
        page = write_gallery(GalleryOptions(runs, tmp_path / "datasets", out)).read_text()
        links = re.findall(r'<a href="([^"#][^":]*)"', page)
        assert len(links) == 4  # two reports, the generator's card, the dataset's
        for link in links:
            assert (out.parent / unquote(link)).is_file()


def test_damaged_unfinished_and_foreign_folders_are_listed_with_the_reason(runs: Path) -> None:
    write_classifier(runs / "cls/damaged", 0.7)
    (runs / "cls/damaged/metrics.json").write_text("{")
    write_classifier(runs / "cls/forged", 0.7)
    (runs / "cls/forged/manifest.json").write_text("{}")
    begin(make(runs / "cls/begun"), "classifier", {}, {})
    write(runs / "gan/old", "generator", {"generator.json": {"kimg": 3}})
    (make(runs / "notes/inner") / "a.txt").write_text("mine")
    (runs / "notes/b.txt").write_text("mine")
    (make(runs / ".hidden") / "c.txt").write_text("mine")
    (runs / "README.txt").write_text("mine")
    page = update(runs).read_text()
    faults = {name: row[0] for name, row in rows_of(page, "not-shown").items()}
    assert set(faults) == {"cls/damaged", "cls/forged", "cls/begun", "gan/old", "notes"}
    assert "is not what was written" in faults["cls/damaged"]
    assert "manifest.json" in faults["cls/forged"]
    assert faults["cls/begun"] == "not finished (classifier): --resume goes on with it"
    assert "not as this version writes it (KeyError: 'architecture')" in faults["gan/old"]
    assert faults["notes"].startswith("no manifest.json: not of DermSynth")
    assert "5 folders cannot be shown" in words(page)
    assert len(rows_of(page, "classifiers")) == 2


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_names_are_escaped(runs: Path) -> None:
    write_classifier(runs / "cls/<b>x", 0.7, backbone="<script>alert(1)</script>")
    page = update(runs).read_text()
    assert "<b>x" not in page
    assert "alert(1)</script>" not in page


def test_a_page_that_is_no_gallery_is_not_written_over(runs: Path, tmp_path: Path) -> None:
    (runs / "index.html").write_text("<html>mine</html>")
    with pytest.raises(UserError, match="is no gallery, and is not written over"):
        update(runs)
    assert (runs / "index.html").read_text() == "<html>mine</html>"
    with pytest.raises(UserError, match="no such folder"):
        update(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"ends in \.html"):
        write_gallery(GalleryOptions(runs, out=tmp_path / "page.txt"))


def test_it_is_written_over_and_an_empty_folder_is_a_page(tmp_path: Path) -> None:
    runs = make(tmp_path / "runs")
    assert "0 experiments" in update(runs).read_text()
    write_experiment(runs / "e")
    assert "1 experiment," in update(runs).read_text()


def test_what_is_finished_in_runs_updates_it_and_else_leaves_no_page(
    runs: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    update_after([make(tmp_path / "mine"), make(tmp_path / "datasets/new")])
    assert not (runs / "index.html").exists()
    assert capsys.readouterr().out == ""
    update_after([tmp_path / "mine", runs / "exp/one"])
    assert capsys.readouterr().out == "gallery: runs/index.html\n"
    (runs / "index.html").write_text(gallery.MARK)
    update_after([tmp_path / "datasets/new"])  # a dataset is on the page, where there is one
    assert "1 experiment," in (runs / "index.html").read_text()


SCRIPT = """
import sys
from dataclasses import dataclass
from pathlib import Path
from dermsynth import cli, manifest
from dermsynth.errors import UserError
from dermsynth.folders import run_folder, whole_folder
@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/new")  # where
    fails: bool = False  # end badly
def main(options):
    with whole_folder(options.out, "thing") as folder:
        manifest.seal(folder, "thing", {})
    if options.fails:
        raise UserError("no")
    cli.say_next("rest")
cli.run(Options, main, "thing", "A thing.")
"""


def run_command(folder: Path, *words: str) -> str:
    """What a command that finishes one folder prints; it runs in a process of its own."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == (2 if "--fails" in words else 0), done.stderr
    return done.stdout


@pytest.fixture
def installed(tmp_path: Path) -> None:
    """The entry point of pyproject.toml, as an installation would leave it, found beside us."""
    said = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    lines = [f"{key} = {value}" for key, value in said["project"]["entry-points"][GROUP].items()]
    place = make(tmp_path / "listener-1.0.dist-info")
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: listener\nVersion: 1.0\n")
    (place / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))


@pytest.mark.usefixtures("installed")
def test_every_command_that_ends_well_updates_it_before_it_names_the_next(tmp_path: Path) -> None:
    make(tmp_path / "runs")
    assert run_command(tmp_path) == "gallery: runs/index.html\nnext: rest\n"
    assert (tmp_path / "runs/index.html").is_file()
    (tmp_path / "runs/index.html").unlink()
    assert run_command(tmp_path, "--out", "elsewhere/new") == "next: rest\n"
    assert run_command(tmp_path, "--out", "runs/third", "--fails") == ""
    assert not (tmp_path / "runs/index.html").exists()


@pytest.mark.usefixtures("installed")
def test_a_page_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (make(tmp_path / "runs") / "index.html").write_text("mine")
    said = run_command(tmp_path)
    assert said.startswith("warning: gallery not updated (runs/index.html: is no gallery")
    assert said.endswith("\nnext: rest\n")
    assert (tmp_path / "runs/index.html").read_text() == "mine"


def test_outside_of_a_command_nobody_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with whole_folder(tmp_path / "runs/task", "thing") as folder:
        seal(folder, "thing", {})
    finished.tell()
    assert not (tmp_path / "runs/index.html").exists()


def test_ten_runs_take_less_than_a_second(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(10):
        write_classifier(tmp_path / f"runs/cls/{number}", 0.8)
    started = time.perf_counter()
    update_after([tmp_path / "runs/cls/3"])
    assert time.perf_counter() - started < 1


def test_hundreds_of_runs_take_seconds(tmp_path: Path) -> None:
    for number in range(300):
        write_classifier(tmp_path / f"runs/cls/{number}", 0.8)
    started = time.perf_counter()
    update(tmp_path / "runs")
    assert time.perf_counter() - started < 10


def test_thumbnails_have_the_right_places() -> None:
    rows = [COMPARISON, COMPARISON | {"delta_auc": None}, COMPARISON | {"delta_auc": -0.05}]
    forest = str(thumbnails.forest(rows))
    dots = [float(x) for x in re.findall(r'<circle cx="([^"]*)"', forest)]
    middle = thumbnails.WIDE / 2
    assert len(dots) == 2  # without a difference there is no row
    assert (dots[0] - middle) / (dots[1] - middle) == pytest.approx(0.031 / -0.05, rel=0.01)
    assert thumbnails.forest([]) is None
    history = [{"epoch": 1, "val_auc": 0.5}, {"epoch": 2, "val_auc": 1.0}]
    curve = str(thumbnails.curve(history, 2))
    assert 'points="5.0,39.0 145.0,5.0"' in curve
    assert 'cx="145.0" cy="5.0"' in curve
    assert 'cx="75.0"' in str(thumbnails.curve(history[:1], 1))  # one epoch: a dot
    assert thumbnails.curve([{"epoch": 1, "val_auc": None}], 1) is None
    assert thumbnails.grid(b"no picture") is None
    assert gallery.number(None) == "–"
