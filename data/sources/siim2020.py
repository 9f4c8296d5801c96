"""SIIM-ISIC 2020: train.csv as Kaggle publishes it, the ground truth as ISIC publishes it.

Its target column (melanoma or not) is the target. --positive with other diagnoses takes those
instead; 27,124 benign images have none, and stay 0. Of the tables that are there
the one with lesion ids is read. test.csv adds images without labels. ISIC's list of duplicates is
honoured where it is there.
"""

from pathlib import Path

import numpy as np

from data.sources.listing import Listing, SourceOptions
from data.sources.matching import SUFFIX
from data.sources.rows import Rows, listing, read_rows, stacked
from data.sources.tables import find_table, read_table
from data.sources.targets import Own
from dermsynth.errors import UserError

TRAINING = (
    "isic_2020_training_groundtruth_v2.csv",
    "isic_2020_training_groundtruth.csv",
    "train.csv",
)
TEST = ("isic_2020_test_metadata.csv", "test.csv")
DUPLICATES = ("isic_2020_training_duplicates.csv",)
FACTS = {
    "licence": "CC BY-NC 4.0",
    "citation": "Rotemberg et al.: A patient-centric dataset of images and metadata for identifying"
    " melanomas using clinical context. Scientific Data 8 (2021), doi:10.1038/s41597-021-00815-z",
}
IMAGE = ("image_name", "image")
OPTIONAL = (
    ("patient_id", "patient"),
    "lesion_id",
    ("age_approx", "age"),
    "sex",
    ("anatom_site_general_challenge", "anatom_site_general"),
)
NAMES = {
    "image_name": "image_id",
    "age_approx": "age",
    "anatom_site_general_challenge": "site",
    "benign_malignant": "word",
}
OWN_COLUMN = Own("the column target", ("mel",))
OWN = {"0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0}


def list_siim2020(root: Path, options: SourceOptions) -> Listing:
    """One row an image of the CSVs; `same` is ISIC's list of duplicates. Raises UserError."""
    training, test = find_table(root, TRAINING), find_table(root, TEST)
    if training is None and test is None:
        raise UserError(
            f"--root {root}: no train.csv (Kaggle) or ISIC_2020_Training_GroundTruth_v2.csv (ISIC) "
            "in it or below; the table comes with the images of SIIM-ISIC 2020"
        )
    tables = [_training(root, options, training)] if training else []
    tables += [_test(root, test)] if test else []
    rows = stacked(tables)
    names = [path.name for path in (training, test) if path]
    facts = FACTS | {"metadata": ", ".join(names)}
    pairs = None
    if duplicates := find_table(root, DUPLICATES):
        pairs = read_table(duplicates, root, ("image_name_1", "image_name_2")).cells
        pairs = pairs.map(lambda name: SUFFIX.sub("", name))
        facts |= {"duplicates_list": duplicates.name, "declared_pairs": len(pairs)}
    return listing("siim2020", root, options, rows, facts, pairs, own=OWN_COLUMN)


def _training(root: Path, options: SourceOptions, path: Path) -> Rows:
    optional = (*OPTIONAL, "diagnosis", "benign_malignant")
    rows = read_rows(path, root, (IMAGE, "target"), optional, NAMES, options.fold_column)
    own = rows.raw.pop("target").map(OWN).astype(np.float64)
    rows.raw["own"] = own
    rows.reject(own.isna(), "target is neither 0 nor 1")
    if "word" in rows.raw:
        named = rows.raw.pop("word").str.lower().map({"benign": 0.0, "malignant": 1.0})
        rows.reject(named.notna() & (named != rows.raw["own"]), "conflicting targets for one image")
    return rows


def _test(root: Path, path: Path) -> Rows:
    rows = read_rows(path, root, (IMAGE,), OPTIONAL, NAMES)
    rows.raw["own"] = np.nan
    return rows
