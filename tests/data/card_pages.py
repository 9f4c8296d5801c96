"""Made-up datasets for tests of the dataset card, and what is read from its page."""

import html
import re
from pathlib import Path

import numpy as np
import pandas as pd

from data import store
from data.report import ReportOptions, write_report
from data.store import Look

FOLDS = [0, 1, 2, -1, -2, -3]


def make_table(n: int = 240, seed: int = 0) -> pd.DataFrame:
    """Groups of two images each, in every kind of part; the last part has no labels."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) // 2
    fold = np.array(FOLDS)[group % len(FOLDS)]
    target = pd.array(np.repeat(rng.random(n // 2) < 0.3, 2).astype(int), dtype="UInt8")
    target[fold == -3] = pd.NA
    place = rng.integers(0, 3, n)
    return pd.DataFrame(
        {
            "image_id": [f"IMG_{i:04d}" for i in range(n)],
            "target": target,
            "diagnosis": np.where(target.fillna(0) == 1, "mel", "nv"),
            "patient_id": [f"P{g}" for g in group],
            "lesion_id": pd.array([f"L{g}" for g in group], dtype="str"),
            "group": group,
            "fold": fold,
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.integers(1, 99, n)),
            "sex": pd.array(rng.choice(["male", "female", None], n), dtype="str"),
            "site": pd.array(rng.choice(["torso", "head/neck", None], n), dtype="str"),
            "source": np.where(fold == -2, "isic2019", "siim2020"),
            "width": np.array([640, 1024, 60])[place],
            "height": np.array([480, 768, 50])[place],
            "sha256": [f"{i:064x}" for i in range(n)],
            "phash": "0" * 16,
        }
    )


def make_images(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(100, 220, (n, 64, 64, 3)).astype(np.uint8)


def make_dataset(folder: Path, table: pd.DataFrame | None = None, **info) -> Path:
    """A dataset folder as data.prepare leaves it; without images where `tables_only` is asked."""
    table = make_table() if table is None else table
    folder.mkdir(parents=True)
    said = {"source": "siim2020", "options": {"source": "siim2020", "size": 64, "folds": 3}}
    said |= {
        "look": Look(size=64, fit="crop", clean=()),
        "dropped": {},
        "licence": "CC BY 4.0",
    }
    said |= info
    if not said["options"].get("tables_only"):
        store.save_images(folder, make_images(len(table)))
    store.seal_dataset(folder, table, said)
    return folder


def add_pairs(folder: Path, pairs: list[tuple]) -> None:
    columns = ["image_id_1", "image_id_2", "kind", "across_lesions"]
    pd.DataFrame(pairs, columns=columns).to_parquet(folder / "duplicates.parquet")
    store.open_dataset_folder(folder).seal_again("duplicates.parquet")


def add_skipped(folder: Path, rows: list[tuple]) -> None:
    skipped = pd.DataFrame(rows, columns=["image_id", "where", "reason"])
    skipped.to_csv(folder / "skipped.csv", index=False)
    store.open_dataset_folder(folder).seal_again("skipped.csv")


def page_of(folder: Path) -> str:
    return write_report(ReportOptions(folder)).read_text()


def words_of(page: str) -> str:
    text = re.sub(r"<(style|script)>.*?</\1>", " ", page, flags=re.DOTALL)
    return html.unescape(" ".join(re.sub(r"<[^>]*>", " ", text).split()))


def rows_under(page: str, title: str) -> dict[str, list[str]]:
    """Cells of the table whose first heading is `title`, by the first cell of each row."""
    table = re.search(
        rf"<table[^>]*>\s*<thead><tr><th>{re.escape(title)}</th>.*?</table>", page, re.S
    )
    rows = re.findall(r"<tr[^>]*>(<td.*?)</tr>", table[0], re.S)
    cells = [[words_of(c) for c in re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)] for row in rows]
    return {row[0]: row[1:] for row in cells}
