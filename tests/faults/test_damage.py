"""Every file of every artefact damaged in every way: the same answer, or one line and exit 2."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import CLASSIFIER, GAN, make_inputs
from fault_harness import FAILED, REFUSED, SAME, SAMPLE, Outcome, Table, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip_near(share: float) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        if content:
            content[min(int(share * len(content)), len(content) - 1)] ^= 0x10
            path.write_bytes(content)

    flip.__name__ = f"flip at {share}"
    return flip


def delete(path: Path) -> None:
    path.unlink()


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_list(path: Path) -> None:
    path.write_text("[]")


def nest(path: Path) -> None:
    path.write_text("[" * 200_000)


def unknown_version(path: Path) -> None:
    if path.suffix == ".json":
        values = json.loads(path.read_text())
        if isinstance(values, dict):
            path.write_text(json.dumps(values | {"schema_version": 99}))


DAMAGES = [
    *(cut, empty, zero, delete, become_folder, become_pipe, become_list, nest, unknown_version),
    *(flip_near(share) for share in (0.001, 0.3, 0.7, 0.999)),
]


@dataclass(frozen=True)
class Reader:
    """A command that reads a folder, and the file or figure by which its answer is known."""

    folder: str
    line: str
    answer: str

    def __str__(self) -> str:
        return f"{self.folder}: {self.line.split()[0]}"


SMALL = CLASSIFIER.replace("--epochs 2", "--epochs 1")
READERS = [
    Reader("p", "data.report p --out card.html", "card.html"),
    Reader("p", "classifier.predict --run c --data p --out s.csv", "s.csv"),
    Reader("p", f"gan.train --data p {GAN} --out new", "new/generator.safetensors"),
    Reader("pool", f"classifier.train --data p2 {SMALL} --synthetic 0.3 --pool pool --out new",
           "new/predictions.parquet"),
    Reader("g", "gan.generate --generator g --count 20 --out new", "new/images.npy"),
    Reader("c", "classifier.predict --run c --data p --out s.csv", "s.csv"),
    Reader("c", "classifier.evaluate --run c --replicates 200 --out new", "new/evaluation.json"),
    Reader("c", "classifier.blend --scores a=c b=c2 --out s.csv", "s.csv"),
    Reader("e", "experiments.report e", "e/report.html"),
    Reader("e", "experiments.run e.yaml --data p2 --out e --tracking none --resume",
           "e/comparisons.json"),
]  # fmt: skip


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    make_inputs(folder)
    line = "experiments.run e.yaml --data p2 --out e --tracking none"
    outcome = run(line.split(), folder)
    assert outcome.code == 0, str(outcome)
    return folder


def answered(work: Path, reader: Reader) -> tuple[Outcome, bytes | None]:
    outcome = run(reader.line.split(), work)
    path = work / reader.answer
    return outcome, path.read_bytes() if path.is_file() else None


def chosen(number: int) -> list[Callable[[Path], None]]:
    """All damages of a file with FAULTS=all, else so many, other ones of each file in turn."""
    asked = os.environ.get("FAULTS", str(SAMPLE))
    if asked == "all" or int(asked) >= len(DAMAGES):
        return DAMAGES
    return [DAMAGES[(number * int(asked) + step) % len(DAMAGES)] for step in range(int(asked))]


@pytest.mark.parametrize("reader", READERS, ids=str)
def test_damage(inputs: Path, tmp_path: Path, table: Table, reader: Reader):
    whole, work = tmp_path / "whole", tmp_path / "work"
    shutil.copytree(inputs, whole)
    shutil.copytree(whole, work)
    outcome, expected = answered(work, reader)
    assert outcome.code == 0, str(outcome)
    assert expected is not None
    folder = whole / reader.folder
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for number, path in enumerate(files):
        for damage in chosen(number):
            shutil.rmtree(work)
            shutil.copytree(whole, work)
            victim = work / path.relative_to(whole)
            damage(victim)
            outcome, answer = answered(work, reader)
            fault = f"damaged {reader.folder}, read by {reader.line.split()[0]}"
            words = f"{path.relative_to(whole)}, {damage.__name__}: {outcome}"
            if outcome.is_one_line:
                table.add(fault, REFUSED)
            elif outcome.code == 0 and answer == expected:
                table.add(fault, SAME)
            else:
                table.add(fault, FAILED, words)
    table.check()
