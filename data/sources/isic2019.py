"""ISIC 2019 as it is downloaded: one-hot ground truth, metadata, and images in any folders.

Some names carry `_downsampled`, in the CSVs, in the files, or in one of both: all of these mean the
same image, whose id is the one without it, as in the ISIC Archive and in HAM10000. The test set
joins in where its metadata is there; without its ground truth it has no labels. UNK is no label.
"""

from pathlib import Path

import pandas as pd

from data.sources.listing import Listing, SourceOptions
from data.sources.matching import ALIAS, SUFFIX
from data.sources.rows import Rows, listing, read_rows, stacked
from data.sources.tables import find_table
from dermsynth.errors import UserError

CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
FACTS = {
    "licence": "CC BY-NC 4.0",
    "citation": "HAM10000 (Tschandl et al. 2018, doi:10.1038/sdata.2018.161), MSK (Codella et al. "
    "2017, arXiv:1710.05006), BCN_20000 (Combalia et al. 2019, arXiv:1908.02288)",
}
COLUMNS = {"age_approx": "age", "anatom_site_general": "site"}


def list_isic2019(root: Path, options: SourceOptions) -> Listing:
    """One row an image of the CSVs; images that are absent have no file. Raises UserError."""
    paths = {
        (half, kind): find_table(root, (f"isic_2019_{half}_{kind}.csv".lower(),))
        for half in ("Training", "Test")
        for kind in ("GroundTruth", "Metadata")
    }
    training = paths["Training", "GroundTruth"], paths["Training", "Metadata"]
    if not all(training) and (any(training) or not paths["Test", "Metadata"]):
        lost = [f"ISIC_2019_Training_{k}.csv" for k in ("GroundTruth", "Metadata")]
        lost = [name for name, path in zip(lost, training, strict=True) if path is None]
        raise UserError(
            f"--root {root}: no {' and no '.join(lost)} in it or below; both tables come with the "
            "images of ISIC 2019 (the metadata says which images show the same lesion)"
        )
    tables = [_training(root, options, *training)] if all(training) else []
    if paths["Test", "Metadata"]:
        tables.append(_test(root, paths["Test", "Metadata"], paths["Test", "GroundTruth"]))
    rows = stacked(tables)
    names = sorted(path.name for path in paths.values() if path)
    return listing("isic2019", root, options, rows, FACTS | {"metadata": ", ".join(names)})


def _training(root: Path, options: SourceOptions, truth: Path, metadata: Path) -> Rows:
    """Rows that are in both tables; the others are faults."""
    labels, rows = _truth(root, truth), _metadata(root, metadata, options.fold_column)
    known, described = set(labels.raw["image_id"]), set(rows.raw["image_id"])
    rows.reject([name not in known for name in rows.raw["image_id"]], f"no row in {truth.name}")
    labels.reject(
        [name not in described for name in labels.raw["image_id"]], f"no row in {metadata.name}"
    )
    return _merge(labels, rows)


def _test(root: Path, metadata: Path, truth: Path | None) -> Rows:
    rows = _metadata(root, metadata)
    return _merge(_truth(root, truth), rows) if truth else rows


def _merge(labels: Rows, rows: Rows) -> Rows:
    """An image that a table names twice is named twice in the result, and is found out there."""
    raw = rows.raw.merge(labels.raw[["image_id", "diagnosis"]], on="image_id", how="left")
    return Rows(raw.fillna({"diagnosis": ""}), [*labels.faults, *rows.faults])


def _truth(root: Path, path: Path) -> Rows:
    """Diagnoses by image. Rows that are not one-hot are faults."""
    rows = read_rows(path, root, ("image", *CLASSES), ("UNK",), {"image": "image_id"})
    votes = rows.raw.drop(columns=["image_id", "where"]).apply(pd.to_numeric, errors="coerce")
    rows.raw = pd.DataFrame(
        {
            "image_id": _canonical(rows.raw["image_id"]),
            "where": rows.raw["where"],
            "diagnosis": votes.fillna(0).idxmax(axis=1) if len(votes) else "",
        }
    )
    single = votes.isin([0, 1]).all(axis=1) & (votes.sum(axis=1) == 1)
    rows.reject(~single, "ground truth is not 1 in one column and 0 in the others")
    return rows


def _metadata(root: Path, path: Path, fold: str | None = None) -> Rows:
    optional = (*COLUMNS, "sex", "lesion_id", "patient_id")
    rows = read_rows(path, root, ("image",), optional, {"image": "image_id"} | COLUMNS, fold)
    rows.raw["image_id"] = _canonical(rows.raw["image_id"])
    return rows


def _canonical(names: pd.Series) -> pd.Series:
    return names.map(lambda name: SUFFIX.sub("", name).removesuffix(ALIAS)).astype(object)
