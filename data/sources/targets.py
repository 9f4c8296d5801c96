"""What counts as malignant: a source's own column, or the diagnosis, but one meaning a dataset.

Without --positive a source's own target counts where it has one, else melanoma against the rest.
--positive names diagnoses, or `malignant` for the source's own column; what cannot be obeyed is
refused. Nothing is benign because it was not understood: a word that may mean a melanoma stops, a
row whose target and diagnosis contradict each other is a fault.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.sources.diagnoses import BENIGN, CANCERS, DIAGNOSES, in_words, plain
from data.sources.listing import SourceOptions
from data.sources.tables import printable
from data.store import TargetMeaning
from dermsynth.errors import UserError, counted, some

OWN_WORD = "malignant"  # of --positive: the source's own column
HOW_TO_MAP = (
    "say what it is in a CSV file with the columns word,diagnosis (mel, nv, bcc, akiec, bkl, df, "
    "vasc, scc, another word, or nothing for no label) and --diagnosis-map FILE"
)


@dataclass(frozen=True)
class Own:
    """A source's own target column, whose values are in `raw["own"]`."""

    told_by: str  # "the column target"
    means: tuple[str, ...] = ()  # diagnoses that its 1 stands for; (): malignant, of whatever kind
    zero_is_benign: bool = True  # else its 0 may be another cancer


@dataclass(frozen=True)
class Decided:
    """Targets of a source's rows."""

    target: pd.Series  # float64: 1, 0, NaN without a label
    meaning: TargetMeaning
    fault: pd.Series  # why a row cannot be used; "" where it can


def meaning_of(codes: tuple[str, ...]) -> TargetMeaning:
    """Of targets that are told by the diagnosis."""
    codes = tuple(sorted(codes, key=lambda code: (*DIAGNOSES, code).index(code)))
    one = in_words(codes)
    zero = f"not {one}" if len(codes) == 1 else "another diagnosis"
    return TargetMeaning(one=one, zero=zero, positive=codes, told_by="the diagnosis")


def decide(root: Path, table: pd.DataFrame, own: Own | None, options: SourceOptions) -> Decided:
    """The targets of a source. Raises UserError for --positive, and for words in doubt.

    Parameters
    ----------
    root : for messages
    table : `word` (as in the file), `diagnosis`, `kind` (both as Understood has them); `own` float
        64 (0, 1 or NaN) where the source has a target; `unlabelled` bool where a row without `own`
        may still be labelled by its diagnosis, and this one not
    own : what the column `own` is; None where there is none
    options : what the user says
    """
    wanted = tuple(dict.fromkeys(_codes(options)))
    named = tuple(code for code in wanted if code != OWN_WORD)
    column = table["own"] if own is not None else pd.Series(np.nan, index=table.index)
    labelled = own is not None and bool(column.notna().any())
    if own is None or not (labelled or named):
        if wanted and not named:
            raise UserError(
                f"--positive malignant: {root} has no column that says malignant or benign; name "
                f"diagnoses, such as --positive mel; there are {_present(table)}"
            )
        return _by_diagnosis(root, table, column, own, named or ("mel",), options)
    if named and set(named) != set(own.means):
        return _by_diagnosis(root, table, column, own, wanted, options)
    if OWN_WORD in wanted and own.means:
        raise UserError(
            f"--positive malignant: {own.told_by} in {root} means {in_words(own.means)}; leave "
            "--positive out"
        )
    return _by_column(root, table, own, options)


def _codes(options: SourceOptions) -> list[str]:
    """The harmonised diagnoses of --positive; [] where it was not given. Raises UserError."""
    if options.positive is None:
        return []
    codes = [
        OWN_WORD if plain(word) == OWN_WORD else options.understand(word).name
        for word in options.positive
    ]
    if not (codes := [code for code in codes if code]):
        raise UserError(f"--positive: empty; name at least one of {', '.join(DIAGNOSES)}")
    return codes


# ------------------------------------------------------------------------------------ by diagnosis


def _by_diagnosis(
    root: Path,
    table: pd.DataFrame,
    column: pd.Series,
    own: Own | None,
    positive: tuple[str, ...],
    options: SourceOptions,
    part: bool = False,
) -> Decided:
    """1 where the diagnosis is one of `positive`; what has none may be told by the own column.

    `part`: these are not all rows of the source.
    """
    named = tuple(code for code in positive if code != OWN_WORD)
    diagnosis, kind = table["diagnosis"], table["kind"]
    if own is not None and diagnosis.isna().all() and column.notna().any():
        raise UserError(
            f"--positive {some(named)}: {root} has no diagnosis, only {own.told_by}; leave "
            "--positive out and its 1 is the target"
        )
    if options.positive is not None or not part:
        _check_present(root, table, named)
    hit = diagnosis.isin(named)
    target = hit.astype(np.float64).where(hit | kind.isin(["known", "unknown", "doubtful"]))
    doubtful = (kind == "doubtful") & ~hit & target.notna()
    if "mel" in named:
        _stop_at_doubt(root, table[doubtful], "counts as not melanoma")
    if own is not None:
        open_ = (diagnosis.isna() | (kind == "indeterminate")) & ~hit & column.notna()
        means = set(own.means)
        benign = bool(own.zero_is_benign and not set(named) & set(BENIGN))
        if benign or set(named) <= means:
            target = target.mask(open_ & (column == 0), 0.0)
        one = open_ & (column == 1)
        if means and not means & set(named):
            target = target.mask(one, 0.0)
        elif OWN_WORD in positive or (means and means <= set(named)):
            target = target.mask(one, 1.0)
        if lost := int((open_ & target.isna()).sum()):
            print(
                f"note: {root}: {counted(lost, 'row has', 'rows have')} no diagnosis that decides, "
                f"and {own.told_by} does not say whether it is {in_words(named)}: no label"
            )
    return Decided(target, meaning_of(named), pd.Series("", index=table.index))


def _check_present(root: Path, table: pd.DataFrame, named: tuple[str, ...]) -> None:
    """Raise UserError unless the diagnoses are there.

    A known diagnosis may be absent as long as another one is there: sources that are joined differ.
    """
    there = set(table["diagnosis"].dropna())
    absent = [code for code in named if code not in there]
    strange = [code for code in absent if code not in DIAGNOSES]
    if there and (strange or len(absent) == len(named)):
        raise UserError(
            f"--positive {some(strange or absent)}: no such diagnosis in {root}; there are "
            f"{_present(table)}"
        )


def _present(table: pd.DataFrame) -> str:
    counts = table["diagnosis"].value_counts()
    return some([f"{printable(str(name))} ({n:,})" for name, n in counts.items()], 20) or "none"


def _stop_at_doubt(root: Path, rows: pd.DataFrame, what: str) -> None:
    """Raise UserError unless `rows` is empty: their words may mean a melanoma."""
    if rows.empty:
        return
    counts = rows["word"].value_counts()
    words = some([f"`{printable(str(word))}` ({n:,})" for word, n in counts.items()], 10)
    raise UserError(
        f"{root}: {counted(len(rows), 'row has', 'rows have')} a diagnosis that may mean melanoma "
        f"and that {what}: {words}; {HOW_TO_MAP}"
    )


# -------------------------------------------------------------------------------- by its own column


def _by_column(root: Path, table: pd.DataFrame, own: Own, options: SourceOptions) -> Decided:
    """The source's own 0 and 1; of rows without one, those labelled by their diagnosis."""
    column, name, kind = table["own"].astype(np.float64), table["diagnosis"], table["kind"]
    told = column.notna()
    fault = pd.Series("", index=table.index)
    mel = not own.means or "mel" in own.means
    if mel:
        fault = fault.mask(
            (column == 0) & (name == "mel"), "target 0, but the diagnosis is melanoma"
        )
    other = name.isin(BENIGN)
    if own.means:
        other = name.isin(DIAGNOSES) & ~name.isin(own.means)
        fault = fault.mask((column == 0) & name.isin(own.means), "target 0, but such a diagnosis")
    fault = fault.mask((column == 1) & other, "target 1, but the diagnosis is another")
    if mel:
        zero = (column == 0) & (kind == "doubtful")
        _stop_at_doubt(root, table[zero], f"{own.told_by} counts as 0")
    ones, zeros = (told & (column == value) & (fault == "") for value in (1, 0))
    means = own.means
    if (
        not means
        and ones.any()
        and (name[ones] == "mel").all()
        and not (name[zeros] == "mel").any()
    ):
        means = ("mel",)
    meaning = meaning_of(means) if means else TargetMeaning()
    meaning = meaning.model_copy(update={"told_by": own.told_by})
    if "unlabelled" not in table:  # without a target of its own a row has none
        return Decided(column, meaning, fault)
    rest = ~told & ~table["unlabelled"].astype(bool) & name.notna()
    if not rest.any():
        return Decided(column, meaning, fault)
    # the class folders `malignant` and `nevus`, say: of both kinds in one source
    by_word = _by_diagnosis(root, table[rest], column[rest], None, ("mel",), options, part=True)
    others = sorted(set(name[rest][by_word.target == 0]) & {*CANCERS, "akiec"})
    if ones.any() and not means and others and options.positive is None:
        raise UserError(
            f"{root}: {counted(int(ones.sum()), 'image is', 'images are')} called malignant and "
            f"others {some(others)}, which is a cancer too: say which diagnoses are the "
            f"target, such as --positive mel,{','.join(others)} or --positive mel"
        )
    if not ones.any():
        meaning = by_word.meaning
    target = column.copy()
    target[rest] = by_word.target
    return Decided(target, meaning, fault)


# ------------------------------------------------------------------------------- of several sources


def check_one_meaning(sources: list[tuple[str, pd.DataFrame, TargetMeaning]]) -> TargetMeaning:
    """The meaning of targets that are joined from (source, table, meaning); the first's words.

    Raises UserError where a diagnosis counts as 1 in one place and as 0 in another.
    """
    told = [(name, meaning) for name, _, meaning in sources if meaning.positive]
    counts: dict[str, dict[int, list[str]]] = {}
    for source, table, _ in sources:
        rows = table[table["target"].notna() & table["diagnosis"].isin(DIAGNOSES)]
        for (code, target), n in rows.groupby(["diagnosis", "target"]).size().items():
            counts.setdefault(code, {}).setdefault(int(target), []).append(f"{n:,} in {source}")
    for code, by_target in counts.items():
        alone = len(sources) == 1 and code == "akiec"  # actinic keratosis, and Bowen's disease
        if len(by_target) > 1 and not alone:
            raise UserError(
                f"the diagnosis {code} counts as 1 ({', '.join(by_target[1])}) and as 0 "
                f"({', '.join(by_target[0])}): one word, two meanings of the target; choose one "
                "for all, such as --positive mel"
            )
        for source, meaning in told:
            if (wrong := by_target.get(int(code not in meaning.positive))) and not alone:
                raise UserError(
                    f"in {source} the target is {meaning.one}, but {code} counts as "
                    f"{int(code not in meaning.positive)} elsewhere ({', '.join(wrong)}): choose "
                    "one meaning for all, such as --positive mel"
                )
    return sources[0][2]


def said_of_words(words: pd.DataFrame, meaning: TargetMeaning) -> list[str]:
    """Lines that say which diagnoses were not understood, and what they were taken for.

    `words` as Listing.words.
    """
    lines = []
    for kind, what in (
        ("unknown", "diagnoses that are none of the eight classes, as they are written"),
        ("doubtful", "diagnoses that may mean melanoma, told by your word or your target"),
        ("indeterminate", "diagnoses that are neither benign nor malignant"),
    ):
        rows = words[words["kind"] == kind].sort_values("n", ascending=False)
        if len(rows):
            taken = {0.0: meaning.zero, 1.0: meaning.one}
            listed = [
                f"{printable(word)} ({n:,}: {taken.get(target, 'no label')})"
                for word, target, n in zip(rows["word"], rows["target"], rows["n"], strict=True)
            ]
            lines.append(f"{what} ({len(rows):,}): {some(listed, 12)}")
    return lines
