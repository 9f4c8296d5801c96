"""A user's own words for diagnoses: a CSV file with the columns word and diagnosis."""

from pathlib import Path

from data.sources.diagnoses import DIAGNOSES, NOT_MELANOMA, Understood, plain, understand
from data.sources.tables import printable, read_table
from dermsynth.errors import UserError


def read_map(path: Path) -> dict[str, Understood]:
    """What each word (as `plain` spells it) means.

    An empty diagnosis means no label. Raises UserError for a file that is no such table, for a word
    that is there twice with two meanings, and for a diagnosis that is itself in doubt.
    """
    if not path.is_file():
        raise UserError(f"--diagnosis-map {path}: no such file; expected a CSV of word,diagnosis")
    sheet = read_table(path, path.parent, ("word", "diagnosis"))
    meant: dict[str, Understood] = {}
    for line, word, diagnosis in sheet.cells.itertuples():
        where = f"--diagnosis-map {path} line {line}"
        if not plain(word):
            raise UserError(f"{where}: no word")
        new = _meaning(diagnosis)
        if new.kind == "doubtful":
            raise UserError(
                f"{where}: {printable(diagnosis)} is in doubt itself; expected one of "
                f"{', '.join(DIAGNOSES)}, {NOT_MELANOMA}, another word, or nothing (no label)"
            )
        if meant.setdefault(plain(word), new) != new:
            raise UserError(f"{where}: {printable(word)} is there twice, with two meanings")
    return meant


def _meaning(diagnosis: str) -> Understood:
    new = understand(diagnosis)
    return Understood(new.name, "known") if new.kind == "unknown" else new
