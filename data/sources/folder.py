"""Images of one's own: class sub-folders, or images and tables.

Without a table the class of an image is the first folder below the root that tells images apart:
`benign/`, `malignant/`, or diagnoses, of which --positive says which are malignant. Below it images
may lie at any depth. With a table (the only one below the root, or each --table) every row names an
image; its columns are found by the names that others use, or are given: --image-column,
--target-column, --group-column (patients or lesions, which are never split). Several tables are
joined on the image; tables of equal columns are read one below the other. Tables that say nothing
of labels add to class folders.
"""

from pathlib import Path

import pandas as pd

from data.images.files import NO_TEXT, RENAME, find_files, find_images
from data.images.formats import IN_WORDS
from data.images.pictures import find_pictures
from data.sources import columns
from data.sources.columns import Labels, found
from data.sources.joined import joined, merged
from data.sources.listing import Fault, Listing, SourceOptions, packed_hint
from data.sources.rows import RAGGED, Rows, listing
from data.sources.tables import (
    check_file,
    check_header,
    only_one,
    printable,
    read_header,
    read_table,
)
from data.sources.targets import Own
from dermsynth.errors import UserError, counted, some

SUFFIXES_OF_TABLES = (".csv", ".tsv")
FACTS = {"licence": "unknown: the user's own images"}
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "images", "data"}


def list_folder(root: Path, options: SourceOptions) -> Listing:
    """One row an image of the tables, or one an image of the class folders. Raises UserError."""
    paths = list(options.tables) or _only_table(root, options)
    _check_asked(paths, root, options)
    sheets = [_read(path, root, options) for path in paths]
    if not sheets:
        rows, own, left_out = _from_folders(root, options)
        return _list(root, options, rows, own, FACTS | left_out)
    labelled = [sheet for sheet in sheets if sheet[1] is not None]
    rows = joined([rows for rows, _ in sheets])
    own = next((labels.own for _, labels in sheets if labels and labels.own), None)
    facts = FACTS | {"metadata": ", ".join(path.name for path in paths)}
    if labelled:
        return _list(root, options, rows, own, facts)
    if options.target_column or not _has_folders(root):
        have = "; ".join(f"{path}: {_columns(path, root)}" for path in paths)
        raise UserError(
            f"--root {root}: no column says what the images are ({have}); name it: --target-column "
            f"(usual names are {some(list(columns.TARGET), 4)}, {some(list(columns.DIAGNOSIS), 4)})"
        )
    folders, own, left_out = _from_folders(root, options)
    rows = merged(folders, rows, keep_right=False)
    return _list(root, options, rows, own, facts | left_out)


def _list(
    root: Path, options: SourceOptions, rows: Rows, own: Own | None, facts: dict[str, str]
) -> Listing:
    return listing("folder", root, options, rows, dict(facts), own=own)


# -------------------------------------------------------------------------------------- with tables


def _only_table(root: Path, options: SourceOptions) -> list[Path]:
    """The table below the root, if there is one. Raises UserError where there are several."""
    tables = [path for path in find_files(root) if path.suffix.lower() in SUFFIXES_OF_TABLES]
    asked = (options.image_column, options.target_column, options.group_column, options.fold_column)
    if not tables and any(asked):
        raise UserError(
            f"--root {root}: no CSV file in it or below; expected one with the column "
            f"{', '.join(filter(None, asked))}"
        )
    if options.diagnosis_map:  # its file may lie there too
        tables = [path for path in tables if _columns(path, root) != "word, diagnosis"]
    if len(tables) < 2:
        return tables
    try:
        return [only_one(root, tables)]
    except UserError as error:
        if "differ" not in str(error):
            raise
    listed = [f"\n  --table {path}   ({_columns(path, root)})" for path in tables[:12]]
    more = f"\n  and {len(tables) - 12} more" if len(tables) > 12 else ""
    raise UserError(
        f"--root {root}: {len(tables)} tables that differ; say which to read, --table FILE for "
        "each: they are joined on the image's name, and those of equal columns are read one below "
        f"the other{''.join(listed)}{more}"
    )


def _check_asked(paths: list[Path], root: Path, options: SourceOptions) -> None:
    """Raise UserError for a column that was named and that none of several tables has."""
    asked = {
        "--image-column": options.image_column,
        "--target-column": options.target_column,
        "--group-column": options.group_column,
        "--fold-column": options.fold_column,
    }
    if len(paths) > 1:
        headers = [read_header(path, _inside(path, root)) for path in paths]
        for flag, column in asked.items():
            if column and not any(found(header, column) for header in headers):
                have = "; ".join(f"{path}: {_columns(path, root)}" for path in paths)
                raise UserError(f"{flag} {column}: none of the tables has it ({have})")


def _inside(path: Path, root: Path) -> Path:
    """The folder that a table may not lead out of."""
    return root if path.is_relative_to(root) else path.parent


def _columns(path: Path, root: Path) -> str:
    """The columns of a table, for messages; why they cannot be read, where they cannot."""
    try:
        header = read_header(path, _inside(path, root))
        return some([printable(cell[:40]) or "(no name)" for cell in header], 12)
    except UserError as error:
        return str(error).removeprefix(f"{path}: ")


def _read(path: Path, root: Path, options: SourceOptions) -> tuple[Rows, Labels | None]:
    """The rows of one table, and what it says of labels. Raises UserError."""
    inside = _inside(path, root)
    check_file(path, inside)
    header = read_header(path, inside)
    several = len(options.tables) > 1  # of which one may have a column that was named
    image = found(header, options.image_column) if options.image_column else None
    if image is None and (several or not options.image_column):
        image = found(header, columns.IMAGE)
    wanted: dict[str, str | None] = {
        "patient_id": found(header, options.group_column or columns.PATIENT),
        **{ours: found(header, names) for ours, names in columns.OTHERS.items()},
        "fold": found(header, options.fold_column) if options.fold_column else None,
    }
    if image is None:
        check_header(path, header)
        raise UserError(
            f"{path}: no column {options.image_column or 'that names the images'}; it has "
            f"{_columns(path, root)}; name it: --image-column (usual names are "
            f"{some(list(columns.IMAGE), 6)})"
        )
    asked = (options.target_column, options.group_column, options.fold_column)
    needed = (image, *(name for name in asked if name and not several))
    others = (name for name in wanted.values() if name)
    optional = tuple(dict.fromkeys((*others, *columns.to_read(header, options))))
    sheet = read_table(path, inside, needed, optional)
    cells = sheet.cells
    used = {name for name in (image, *wanted.values()) if name}
    labels = columns.label(cells[[name for name in cells if name not in used]], options, sheet.name)
    for note in labels.notes if labels else ():
        print(f"note: {note}")
    raw = pd.DataFrame(
        {"image_id": cells[image]}
        | {ours: cells[theirs] for ours, theirs in wanted.items() if theirs}
        | (labels.columns if labels else {})
    )
    raw = raw.assign(where=[f"{sheet.name} line {line}" for line in raw.index])
    faults = [Fault("", f"{sheet.name} line {line}", RAGGED) for line in sheet.ragged]
    return Rows(raw.reset_index(drop=True), faults), labels


# ----------------------------------------------------------------------------- with class folders


def _has_folders(root: Path) -> bool:
    return any(len(path.relative_to(root).parts) > 1 for path in find_images(root))


def _from_folders(
    root: Path, options: SourceOptions
) -> tuple[Rows, Own | None, dict[str, dict[str, int]]]:
    """One row an image, its label the name of its class folder; facts of what was left out.

    Raises UserError where there is no image or no class.
    """
    pictures = find_pictures(root)
    for note in pictures.notes():
        print(f"note: {root}: {note}")
    paths = pictures.images
    unnamed = {path for path in paths if NO_TEXT.search(str(path.relative_to(root)))}
    paths = [path for path in paths if path not in unnamed]
    if not paths:
        raise UserError(
            f"--root {root}: no image below it; expected {IN_WORDS} files in class "
            "folders such as benign/ and malignant/, or images and a CSV file"
            + (packed_hint(find_files(root), "; ") or pictures.hint(root))
        )
    parts = [path.relative_to(root).parts for path in paths]
    level = _class_level(root, parts)
    loose = [path for path, steps in zip(paths, parts, strict=True) if len(steps) <= level + 1]
    faults = [
        Fault(printable(path.stem), printable(str(path.relative_to(root))), reason)
        for reason, bad in (("not in a class folder", loose), (RENAME, sorted(unnamed)))
        for path in bad
    ]
    faults += [
        Fault(printable(path.stem), printable(str(path.relative_to(root))), reason)
        for path, reason in pictures.bad.items()
    ]
    inside = [row for row, steps in enumerate(parts) if len(steps) > level + 1]
    if not inside:
        raise UserError(
            f"--root {root}: {counted(len(paths), 'image')} and no class folder; expected "
            "folders such as benign/ and malignant/, or a CSV file that says which image is "
            "malignant"
        )
    stems = [paths[row].stem for row in inside]
    unique = len(set(stems)) == len(stems)
    raw = pd.DataFrame(
        {
            "image_id": stems if unique else [_joined(parts[row]) for row in inside],
            "where": [printable("/".join(parts[row])) for row in inside],
            "path": [paths[row] for row in inside],
        },
        dtype=object,
    )
    words = pd.Series([printable(parts[row][level]) for row in inside], dtype=object)
    _check_classes(root, words, options)
    labels = columns.label_words(words, "the class folders", options)
    left_out = {"left_out": pictures.counts()} if pictures.counts() else {}
    return Rows(raw.assign(**labels.columns), faults), labels.own, left_out


def _class_level(root: Path, parts: list[tuple[str, ...]]) -> int:
    """How many folders lie above the classes: one that holds all, then parts such as train/."""
    level = 0
    while len({steps[level] for steps in parts if len(steps) > level + 2}) == 1 and all(
        len(steps) > level + 2 for steps in parts
    ):
        level += 1
    inside = [steps for steps in parts if len(steps) > level + 1]
    above = sorted({steps[level] for steps in inside})
    if above and all(name.lower() in SPLITS for name in above):
        if not all(len(steps) > level + 2 for steps in inside):
            raise UserError(
                f"--root {root}: the folders are {some(above)}, which are no classes; point --root "
                f"at the folder that holds them, such as {above[0]}"
            )
        print(f"note: {some(above)} below {root} are read as one; the folds are made anew")
        return level + 1
    return level


def _check_classes(root: Path, words: pd.Series, options: SourceOptions) -> None:
    """Raise UserError where the folders' names are numbers that say nothing."""
    said = {"0", "1", *options.diagnosis_map}
    strange = sorted({word for word in words if word.isdigit() and word not in said})
    if strange:
        raise UserError(
            f"--root {root}: the class folders are numbers ({some(sorted(set(words)))}); rename "
            "them to what they mean, such as benign and malignant, or mel and nv, or say it with "
            "--diagnosis-map FILE"
        )


def _joined(steps: tuple[str, ...]) -> str:
    """An id for an image whose name is not its own: all folders and the name."""
    return "__".join([*steps[:-1], Path(steps[-1]).stem])
