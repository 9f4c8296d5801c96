"""Images of one's own: class sub-folders, or images and a CSV file.

Without a CSV file the class of an image is the first folder below the root: `benign/`,
`malignant/`, or diagnoses, of which --positive says which are malignant. Below it images may lie at
any depth. With a CSV file (the only one below the root) each row names an image; its columns are
found by the names that others use, or are given: --image-column, --target-column, --group-column
(patients or lesions, which are never split). A target is 0 or 1, benign or malignant, true or
false, or a diagnosis; another --positive than the default goes by the diagnosis where there is one.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from data.images.files import NO_TEXT, RENAME, SUFFIXES, find_files, find_images
from data.sources import vocabulary
from data.sources.listing import MALIGNANT, Fault, Listing, SourceOptions, packed_hint
from data.sources.rows import Rows, check_positive, from_sheet, listing, positive_codes
from data.sources.tables import Names, Sheet, only_one, printable, read_table
from dermsynth.errors import UserError, some

SUFFIXES_OF_TABLES = (".csv", ".tsv")
FACTS = {"licence": "unknown: the user's own images"}
IMAGE = (
    *("image_id", "image_name", "isic_id", "image", "img_id", "img", "filename", "file_name"),
    *("file", "image_path", "path", "name", "id"),
)
TARGET = (
    *("target", "benign_malignant", "malignant", "label", "class", "y"),
    *("diagnosis", "dx", "diagnostic", "diagnosis_1"),
)
PATIENT = ("patient_id", "patient", "subject_id", "subject", "case_id", "case", "group")
OPTIONAL: tuple[tuple[str, ...], ...] = (
    ("lesion_id", "lesion"),
    ("age", "age_approx"),
    ("sex", "gender"),
    ("site", "localization", "anatom_site_general_challenge", "anatom_site_general", "region"),
    ("diagnosis", "dx", "diagnostic"),
)
WORDS = {"benign": 0.0, "false": 0.0, "malignant": 1.0, "true": 1.0}
UNSURE = "indeterminate"  # no label
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "images", "data"}


def list_folder(root: Path, options: SourceOptions) -> Listing:
    """One row an image of the CSV, or one an image of the class folders. Raises UserError."""
    tables = [path for path in find_files(root) if path.suffix.lower() in SUFFIXES_OF_TABLES]
    if tables:
        return _from_table(root, options, only_one(root, tables))
    columns = (
        options.image_column,
        options.target_column,
        options.group_column,
        options.fold_column,
    )
    if any(columns):
        raise UserError(
            f"--root {root}: no CSV file in it or below; expected one with the column "
            f"{', '.join(filter(None, columns))}"
        )
    return _from_folders(root, options)


# ------------------------------------------------------------------------------------- with a CSV


def _from_table(root: Path, options: SourceOptions, path: Path) -> Listing:
    image: Names = options.image_column or IMAGE
    target: Names = options.target_column or TARGET
    group: Names = options.group_column or PATIENT
    given = [column for column in (options.group_column, options.fold_column) if column]
    try:
        sheet = read_table(path, root, (image, target, *given), (group, *OPTIONAL))
    except UserError as error:
        if "no column" not in str(error):
            raise
        raise UserError(f"{error}; name them: --image-column, --target-column") from None
    cells = {
        "image_id": sheet.cells[_first(image)],
        "word": sheet.cells[_first(target)],
        **{names[0]: sheet.cells[names[0]] for names in OPTIONAL if names[0] in sheet.cells},
    }
    if _first(group) in sheet.cells:
        cells["patient_id"] = sheet.cells[_first(group)]
    if options.fold_column:
        cells["fold"] = sheet.cells[options.fold_column]
    rows = from_sheet(Sheet(sheet.name, pd.DataFrame(cells), sheet.ragged), {})
    facts = FACTS | {"metadata": path.name}
    return _label_and_list(root, options, rows, facts)


def _first(names: Names) -> str:
    return names if isinstance(names, str) else names[0]


# ----------------------------------------------------------------------------- with class folders


def _from_folders(root: Path, options: SourceOptions) -> Listing:
    paths = find_images(root)
    unnamed = {path for path in paths if NO_TEXT.search(str(path.relative_to(root)))}
    paths = [path for path in paths if path not in unnamed]
    if not paths:
        raise UserError(
            f"--root {root}: no image below it; expected {', '.join(SUFFIXES)} files in class "
            "folders such as benign/ and malignant/, or images and a CSV file"
            + packed_hint(find_files(root), "; ")
        )
    parts = [path.relative_to(root).parts for path in paths]
    loose = [path for path, steps in zip(paths, parts, strict=True) if len(steps) == 1]
    faults = [
        Fault(printable(path.stem), printable(str(path.relative_to(root))), reason)
        for reason, bad in (("not in a class folder", loose), (RENAME, sorted(unnamed)))
        for path in bad
    ]
    inside = [row for row, steps in enumerate(parts) if len(steps) > 1]
    if not inside:
        raise UserError(
            f"--root {root}: {len(paths):,} images and no class folder; expected folders such as "
            "benign/ and malignant/, or a CSV file that says which image is malignant"
        )
    stems = [paths[row].stem for row in inside]
    unique = len(set(stems)) == len(stems)
    raw = pd.DataFrame(
        {
            "image_id": stems if unique else [_joined(parts[row]) for row in inside],
            "where": [printable("/".join(parts[row])) for row in inside],
            "word": [printable(parts[row][0]) for row in inside],
            "path": [paths[row] for row in inside],
        },
        dtype=object,
    )
    classes = sorted(set(raw["word"]))
    if all(name.lower() in SPLITS for name in classes):
        raise UserError(
            f"--root {root}: the folders are {some(classes)}, which are no classes; point --root "
            f"at the folder that holds them, such as {classes[0]}"
        )
    return _label_and_list(root, options, Rows(raw, faults), dict(FACTS))


def _joined(steps: tuple[str, ...]) -> str:
    """An id for an image whose name is not its own: all folders and the name."""
    return "__".join([*steps[:-1], Path(steps[-1]).stem])


# ------------------------------------------------------------------------------------------ labels


def _label_and_list(
    root: Path, options: SourceOptions, rows: Rows, facts: dict[str, str]
) -> Listing:
    """Turn `word` into the target, and into the diagnosis where it is one."""
    rows.raw["word"] = rows.raw["word"].map(vocabulary.plain)
    rows.raw["own"] = vocabulary.each(rows.raw["word"], _own).astype(np.float64)
    rows.reject(rows.raw["own"] == np.inf, "target is neither 0 nor 1")
    word, own = rows.raw.pop("word"), rows.raw["own"]
    unlabelled = vocabulary.each(word, lambda w: vocabulary.is_missing(w) or w.startswith(UNSURE))
    named = own.isna() & ~unlabelled.astype(bool)
    if "diagnosis" not in rows.raw:
        rows.raw["diagnosis"] = ""
    rows.raw["diagnosis"] = rows.raw["diagnosis"].where(~named, word).astype(object)
    diagnosis = vocabulary.each(rows.raw["diagnosis"], vocabulary.diagnosis)
    positive = tuple(w for w in options.positive if vocabulary.plain(w) != "malignant") or MALIGNANT
    codes = positive_codes(positive)
    usual = codes == set(MALIGNANT)
    if (named.any() or not usual) and not (usual and (own == 1).any()):
        check_positive(root, diagnosis, positive)
    hit = diagnosis.isin(codes).astype(np.float64)
    rows.raw["own"] = own.mask(named if usual else diagnosis.notna(), hit)
    return listing(
        "folder", root, replace(options, positive=MALIGNANT), rows, facts, global_ids=False
    )


def _own(word: str) -> float:
    """0 or 1 where the word itself says so, NaN where it does not, infinity for other numbers."""
    if word in WORDS or vocabulary.is_missing(word):
        return WORDS.get(word, np.nan)
    try:
        value = float(word)
    except ValueError:
        return np.nan
    return value if value in (0, 1) else np.inf
