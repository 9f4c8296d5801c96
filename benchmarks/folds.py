"""How alike the folds are: triple stratification against scikit-learn's group splitters.

    OMP_NUM_THREADS=1 python -m benchmarks.folds --siim DIR --ham DIR

DIR holds the CSVs of SIIM-ISIC 2020 (ground truth and duplicates) or HAM10000's metadata; no image
is read. For every measure the spread over the folds (largest less smallest, and standard deviation)
is taken, then its mean and worst value over the seeds. About a minute.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from benchmarks.provenance import provenance
from data.folds import assign_folds, group_images
from data.store import TEST
from dermsynth import cli
from dermsynth.files import write_json

Split = Callable[[np.ndarray, np.ndarray, int, float, int], np.ndarray]


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.folds`."""

    siim: Path  # folder with the two CSVs of SIIM-ISIC 2020
    ham: Path  # folder with HAM10000_metadata.csv
    folds: int = 5  # number of folds
    seeds: int = 20  # splits of each way
    out: Path = Path("benchmarks/results/folds.json")  # where the figures go


# ------------------------------------------------------------------------------------- the ways


def by_sklearn(make: Callable[[int, int], GroupKFold | StratifiedGroupKFold]) -> Split:
    """A splitter in assign_folds's place: the test part is one of 1 / fraction parts, cut first."""

    def split(
        targets: np.ndarray, groups: np.ndarray, folds: int, fraction: float, seed: int
    ) -> np.ndarray:
        fold = np.full(len(targets), TEST, np.int64)
        rest = np.arange(len(targets))
        if fraction:
            rest, _ = next(make(round(1 / fraction), seed).split(targets, targets, groups))
        parts = make(folds, seed).split(rest, targets[rest], groups[rest])
        for number, (_, rows) in enumerate(parts):
            fold[rest[rows]] = number
        return fold

    return split


WAYS: dict[str, Split] = {
    "triple": assign_folds,
    "StratifiedGroupKFold": by_sklearn(
        lambda parts, seed: StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    ),
    "GroupKFold": by_sklearn(lambda parts, seed: GroupKFold(parts)),
    "GroupKFold, shuffled": by_sklearn(
        lambda parts, seed: GroupKFold(parts, shuffle=True, random_state=seed)
    ),
}


# --------------------------------------------------------------------------------- the measures


def measure(targets: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """What one part is like."""
    _, sizes = np.unique(groups, return_counts=True)
    return {
        "malignant, % of images": 100 * targets.mean(),
        "malignant": targets.sum(),
        "images": len(targets),
        "groups": len(sizes),
        "groups with a malignant image": len(np.unique(groups[targets == 1])),
        "mean images a group": sizes.mean(),
        "groups of up to 3 images, %": 100 * (sizes <= 3).mean(),
        "groups of 25 images or more, %": 100 * (sizes >= 25).mean(),
        "groups of 50 images or more, %": 100 * (sizes >= 50).mean(),
    }


def spreads(
    split: Split, targets: np.ndarray, groups: np.ndarray, fraction: float, options: Options
) -> dict[str, object]:
    """Spread over the folds of each measure, over seeds; and the test part's distance from all.

    Parameters
    ----------
    split : the way of splitting
    targets, groups : [n]
    fraction : of the test part
    options : seeds and folds
    """
    ranges, deviations, distances, seconds = [], [], [], []
    whole = pd.Series(measure(targets, groups))
    for seed in range(options.seeds):
        start = time.process_time()
        fold = split(targets, groups, options.folds, fraction, seed)
        seconds.append(time.process_time() - start)
        check = pd.DataFrame({"group": groups, "fold": fold}).drop_duplicates()
        if check["group"].duplicated().any():
            raise AssertionError("a group lies in two parts")
        parts = [measure(targets[fold == k], groups[fold == k]) for k in range(options.folds)]
        table = pd.DataFrame(parts)
        ranges.append(table.max() - table.min())
        deviations.append(table.std(ddof=0))
        if fraction:
            test = pd.Series(measure(targets[fold == TEST], groups[fold == TEST]))
            share = pd.Series({name: fraction if counted(name) else 1 for name in test.index})
            distances.append((test - share * whole).abs())

    def summary(rows: list[pd.Series]) -> dict[str, dict[str, float]]:
        table = pd.DataFrame(rows).round(4)
        return {
            name: {"mean": round(float(column.mean()), 4), "worst": float(column.max())}
            for name, column in table.items()
        }

    result: dict[str, object] = {
        "range_over_folds": summary(ranges),
        "sd_over_folds": summary(deviations),
        "cpu_seconds": round(float(np.median(seconds)), 3),
    }
    return result | ({"test_part_off_by": summary(distances)} if fraction else {})


def counted(name: str) -> bool:
    """Whether a measure grows with the part, unlike shares and means."""
    return "%" not in name and "mean" not in name


# -------------------------------------------------------------------------------------- the data


def read_siim(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Targets, and patients joined where the official list calls two of their images duplicates."""
    table = pd.read_csv(root / "ISIC_2020_Training_GroundTruth_v2.csv")
    table = table.sort_values("image_name", ignore_index=True)
    row = pd.Series(table.index, index=table["image_name"])
    pairs = pd.read_csv(root / "ISIC_2020_Training_Duplicates.csv").map(row.__getitem__).to_numpy()
    return table["target"].to_numpy(), group_images(table, pairs)


def read_ham(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Melanoma, and lesions."""
    table = pd.read_csv(root / "HAM10000_metadata.csv").sort_values("image_id", ignore_index=True)
    lesions = table[["lesion_id"]].assign(patient_id=None)
    return (table["dx"] == "mel").to_numpy(np.int64), group_images(
        lesions, np.zeros((0, 2), np.int64)
    )


def large() -> dict[str, float]:
    """Processor time of assign_folds for 400,000 images of up to 200,000 patients."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 200_000, 400_000)
    targets = (rng.random(400_000) < 0.01).astype(np.int64)
    start = time.process_time()
    assign_folds(targets, groups, 5, 0.2, 0)
    count = len(np.unique(groups))
    return {
        "images": 400_000,
        "groups": count,
        "cpu_seconds": round(time.process_time() - start, 2),
    }


def main(options: Options) -> None:
    """Measure and write the results."""
    started = time.process_time()
    sets = {"SIIM-ISIC 2020": read_siim(options.siim), "HAM10000": read_ham(options.ham)}
    rows = []
    for name, (targets, groups) in sets.items():
        facts = {"images": len(targets), "malignant": int(targets.sum())}
        for fraction in (0, 0.2):
            for way, split in WAYS.items():
                spread = spreads(split, targets, groups, fraction, options)
                head = {"data": name, **facts, "groups": len(np.unique(groups))}
                rows.append(head | {"test_fraction": fraction, "way": way} | spread)
                print(f"\n{name}, test part {fraction}, {way}, {spread['cpu_seconds']} s a split")
                for measured, value in spread["range_over_folds"].items():
                    print(f"  {measured:<34}{value['mean']:>10.4f}{value['worst']:>10.4f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    content = {
        **provenance("benchmarks.folds", "numpy", "pandas", "scikit-learn"),
        "cpu_seconds": round(time.process_time() - started),
        "options": cli.as_plain(options),
        "splits": rows,
        "large": large(),
    }
    write_json(options.out, content)
    print(f"\n400,000 images: {content['large']}\nwrote {options.out}")


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.folds", __doc__)
