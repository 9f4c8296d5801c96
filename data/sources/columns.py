"""What the columns of a table of one's own are: by their names, and by what stands in them.

A target is told by words or 0 and 1; whole numbers beyond those are classes without names, and are
never taken for a target because 0 and 1 are among them. One column a class (one-hot) is understood.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from data.sources import vocabulary
from data.sources.diagnoses import plain, understand
from data.sources.listing import SourceOptions
from data.sources.tables import Names, printable
from data.sources.targets import HOW_TO_MAP, Own
from dermsynth.errors import UserError, counted, some

IMAGE = (
    *("image_id", "image_name", "isic_id", "image", "img_id", "img", "filename", "file_name"),
    *("file", "image_path", "filepath", "file_path", "path", "imagename", "img_name", "image_file"),
    *("bcn_filename", "ddi_file", "md5hash", "derm", "name", "id"),
)
TARGET = (
    *("target", "benign_malignant", "malignant", "is_malignant", "label", "class", "y"),
    *("melanoma", "cancer", "ground_truth", "three_partition_label"),
)
DIAGNOSIS = (
    *("diagnosis", "dx", "diagnostic", "disease", "iddx_full", "diagnosis_name", "class_name"),
    *("lesion_type", "category", "histology", "pathology", "condition"),
    *("diagnosis_3", "diagnosis_2", "diagnosis_1"),
)
PATIENT = ("patient_id", "patient", "subject_id", "subject", "case_id", "case", "group")
OTHERS: dict[str, tuple[str, ...]] = {
    "lesion_id": ("lesion_id", "lesion"),
    "age": ("age", "age_approx", "age_approximate"),
    "sex": ("sex", "gender"),
    "site": (
        *("site", "localization", "anatom_site_general_challenge", "anatom_site_general"),
        *("region", "location"),
    ),
}
YES = {
    *("1", "malignant", "true", "yes", "y", "ja", "j", "oui", "si", "positive", "pos", "positiv"),
    *("malign", "maligne", "maligno", "maligna", "bosartig", "cancer", "cancerous"),
}
NO = {
    *("0", "benign", "false", "no", "n", "nein", "non", "nee", "negative", "neg", "negativ"),
    *("benigne", "benigno", "benigna", "gutartig", "non cancer", "noncancer", "non cancerous"),
    *("not malignant", "non malignant", "nonmalignant", "not cancer"),
}
UNSURE = ("indeterminate", "unlabelled", "unlabeled", "ungradable")  # no label
UNNAMED = ("unk", "unknown")  # classes of a one-hot table that are no label


def to_read(header: list[str], options: SourceOptions) -> tuple[str, ...]:
    """The columns of a table that may matter for labels: a table of 400,000 rows has many more."""
    names = {options.target_column, *TARGET, *DIAGNOSIS}
    lower = {name.lower() for name in names if name}
    return tuple(
        dict.fromkeys(
            name
            for name in header
            if name.lower() in lower or _stands_for(name, options) is not None or _is_code(name)
        )
    )


@dataclass(frozen=True)
class Labels:
    """What a table says of its rows."""

    columns: dict[str, pd.Series]  # of Rows.raw: diagnosis, own, unlabelled
    own: Own | None
    notes: tuple[str, ...] = ()  # what was passed over


def found(header: list[str], names: Names) -> str | None:
    """The column that has one of `names`, the first that is there; None where there is none."""
    lower = {column.lower(): column for column in reversed(header)}
    names = (names,) if isinstance(names, str) else names
    return next((lower[name.lower()] for name in names if name.lower() in lower), None)


def told(word: str) -> float:
    """1 or 0 where a word itself says so ("1,0" of a German Excel too), NaN where it does not."""
    if (number := vocabulary.number(word)) is not None:
        return number if number in (0, 1) else np.nan
    words = plain(word)
    return 1.0 if words in YES else 0.0 if words in NO else np.nan


def is_unsure(word: str) -> bool:
    """Whether a cell says that there is no label."""
    if vocabulary.number(word) == -1:
        return True
    return vocabulary.is_missing(word) or plain(word).startswith(UNSURE)


def label(cells: pd.DataFrame, options: SourceOptions, where: str) -> Labels | None:
    """Target and diagnosis of rows; None where no column tells either. Raises UserError.

    Parameters
    ----------
    cells : words, by the columns of the file
    options : `target_column`, and the user's words for classes
    where : the file, for messages
    """
    header = cells.columns.tolist()
    given = found(header, options.target_column) if options.target_column else None
    names = [given] if given else [c for n in (*TARGET, *DIAGNOSIS) if (c := found(header, n))]
    kinds = {name: _kind(cells[name], options) for name in names}
    target = next((name for name in names if kinds[name] == "binary"), None)
    told_otherwise = target is not None and understand(target).name != "mel"
    classes = one_hot_columns(cells, options) if not told_otherwise else {}
    if classes and (not given or given in classes):
        return _one_hot(cells, classes, where)
    diagnosed = [name for name in names if kinds[name] == "words"]
    if given and target:  # its diagnosis stands in another column
        others = [c for n in DIAGNOSIS if (c := found(header, n)) and c != given]
        diagnosed = [name for name in others if _kind(cells[name], options) == "words"]
    numbered = [name for name in names if kinds[name] == "numbers"]
    if numbered and not (target or diagnosed):
        counts = cells[numbered[0]].value_counts()
        shown = some([f"{printable(word)} ({n:,})" for word, n in counts.items()], 8)
        raise UserError(
            f"{where}: column {numbered[0]} holds numbers other than 0 and 1: {shown}; classes "
            f"without names are no target: {HOW_TO_MAP}"
        )
    notes = tuple(
        f"{where}: column {name} holds numbers other than 0 and 1, classes without names; not read"
        for name in numbered
    )
    diagnosis = cells[diagnosed[0]] if diagnosed else None
    if target is None and diagnosis is None:
        return None
    if target is None:
        return replace(label_words(diagnosis, where, options), notes=notes)
    word = cells[target]
    columns = {"own": word.map(told).astype(np.float64), "unlabelled": word.map(told).isna()}
    if diagnosis is not None:
        columns["diagnosis"] = diagnosis.where(diagnosis.map(told).isna(), "").astype(object)
    means = understand(target).name
    melanoma = means == "mel"
    own = Own(f"column {target} of {where}", ("mel",) if melanoma else (), not melanoma)
    return Labels(columns, own, notes)


def label_words(words: pd.Series, where: str, options: SourceOptions) -> Labels:
    """Labels of words that are diagnoses, benign or malignant, or both in one column.

    A number other than 0 and 1 among them becomes an infinite `own`.
    """
    mapped = vocabulary.each(words, lambda word: plain(word) in options.diagnosis_map).astype(bool)
    own = vocabulary.each(words, told).astype(np.float64).mask(mapped)
    unsure = vocabulary.each(words, is_unsure).astype(bool) & ~mapped
    numbers = vocabulary.each(words, lambda word: vocabulary.number(word) is not None).astype(bool)
    own = own.mask(numbers & own.isna() & ~unsure & ~mapped, np.inf)
    named = own.isna() & ~unsure
    columns = {"own": own, "unlabelled": unsure, "diagnosis": words.where(named, "").astype(object)}
    if not own.notna().any():
        del columns["own"]
    return Labels(columns, Own(f"what {where} calls malignant") if own.notna().any() else None)


def _kind(column: pd.Series, options: SourceOptions) -> str:
    """`binary`, `words`, `numbers` or `empty`: what stands in a column."""
    words = [word for word in column.unique() if not is_unsure(word)]
    if not words:
        return "empty"
    if all(plain(word) in options.diagnosis_map for word in words):
        return "words"
    if not any(np.isnan(told(word)) for word in words):
        return "binary"
    return "numbers" if all(vocabulary.number(word) is not None for word in words) else "words"


# ------------------------------------------------------------------------------------------ one-hot


def one_hot_columns(cells: pd.DataFrame, options: SourceOptions) -> dict[str, str]:
    """Columns that are classes, by name, and what each stands for; {} unless there are two."""
    classes = {
        name: code for name in cells if (code := _stands_for(str(name), options)) is not None
    }
    zero_one = {"0", "0.0", "1", "1.0", "0,0", "1,0", ""}
    classes = {name: code for name, code in classes.items() if set(cells[name]) <= zero_one}
    if sum(map(bool, classes.values())) < 2:
        return {}
    strange = [  # BEN_OTH beside MEL and NV
        name
        for name in cells
        if name not in classes and set(cells[name]) <= zero_one and _is_code(name)
    ]
    return classes | {name: name for name in strange}


def _stands_for(name: str, options: SourceOptions) -> str | None:
    """The diagnosis that a column is called after; "" for unknown ones, None where it is none."""
    if plain(name) in UNNAMED:
        return ""
    meant = options.understand(name)
    return meant.name if meant.kind == "known" or plain(name) in options.diagnosis_map else None


def _is_code(name: str) -> bool:
    return name == name.upper() and name.replace("_", "").isalpha()


def _one_hot(cells: pd.DataFrame, classes: Mapping[str, str], where: str) -> Labels:
    """The class of each row; of up to three columns a row may be none, and is another diagnosis."""
    votes = cells[list(classes)].map(lambda word: told(word) if word else 0.0)
    total = votes.sum(axis=1)
    if (several := int((total > 1).sum())) or (len(classes) > 3 and (total == 0).any()):
        wrong = several or int((total == 0).sum())
        line = cells.index[(total != 1) if not several else total > 1][0]
        raise UserError(
            f"{where} line {line}: {', '.join(classes)} are one column a class, and "
            f"{counted(wrong, 'row has', 'rows have')} not exactly one 1; mend that"
        )
    chosen = votes.idxmax(axis=1).map(classes).where(total == 1, "").astype(object)
    unnamed = (total == 1) & (chosen == "")
    melanoma = [name for name, code in classes.items() if code == "mel"]
    if not melanoma:
        return Labels({"diagnosis": chosen, "unlabelled": unnamed}, None)
    own = votes[melanoma].max(axis=1).mask(unnamed)
    return Labels(
        {"diagnosis": chosen, "own": own, "unlabelled": unnamed},
        Own(f"column {melanoma[0]} of {where}", ("mel",), zero_is_benign=False),
    )
