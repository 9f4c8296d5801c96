"""Options of `python -m data.prepare`, and what is wrong with them whatever the data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from data.phantom.config import PhantomOptions
from dermsynth.errors import UserError
from dermsynth.options import (
    Between,
    Seed,
    TrackedOptions,
    ZeroToBelowOne,
    changed,
    check_bounds,
    flag,
)

DATASETS = Path("datasets")  # where a dataset goes unless --out says so
Side = Annotated[int, Between(32, 1024)]  # px, of what is stored
Tabular = Literal[
    *("ham10000", "isic2016", "isic2017", "isic2018", "isic2019", "siim2020", "isic2024"),
    *(
        "milk10k",
        "bcn20000",
        "pad-ufes-20",
        "derm7pt",
        "fitzpatrick17k",
        "ddi",
        "ph2",
        "dermamnist",
    ),
    *("isic-archive", "folder", "tfrecords"),
]
SourceName = Literal[Tabular, "phantom", "pool"]
ConflictPolicy = Literal["fail", "keep", "malignant", "drop"]
Extras = Annotated[tuple[Tabular, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class InputOptions:
    """What it reads."""

    source: SourceName = "phantom"  # where the images come from
    root: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()  # folder of each source
    extra: Extras = ()  # further sources that join the training parts only, each with its --root


@dataclass(frozen=True)
class PixelOptions:
    """How files become pixels."""

    size: Side | Literal["native"] = 128  # side of the stored images, px; native: files as they are
    fit: Literal["crop", "letterbox"] = "crop"  # cut the long side, or fill up the short one
    clean: str = ""  # of hair, frame, colour, comma-separated: what to remove from every image

    @property
    def native(self) -> bool:
        """Whether the files are kept as they are."""
        return self.size == "native"


@dataclass(frozen=True)
class SplitOptions:
    """Folds and the test part."""

    folds: Annotated[int, Between(2, 1000)] = 5  # number of folds, at least 2
    test_fraction: ZeroToBelowOne = 0.2  # share kept for the test part
    fold_column: str | None = None  # keep the folds of this column of the CSV (-1: test part)
    seed: Seed = 0  # of the folds, and of the phantom's images


@dataclass(frozen=True)
class LabelOptions:
    """What counts as malignant, and what happens to rows and images that are at fault."""

    positive: str | None = None  # diagnoses that are the target, comma-separated, or `malignant`
    diagnosis_map: Path | None = None  # CSV file (word,diagnosis) for words that are not understood
    conflicts: ConflictPolicy = "fail"  # lesions of both targets; keep: each image its own
    on_error: Literal["fail", "skip"] = "fail"  # unusable rows and images: stop, or leave them out
    tables_only: bool = False  # folds and table without any image


@dataclass(frozen=True)
class ColumnOptions:
    """Tables of one's own folder, and their columns where the names are unusual."""

    table: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()  # CSV files, joined on image
    image_column: str | None = None  # name or path of the image
    target_column: str | None = None  # 0/1, benign/malignant or diagnoses
    group_column: str | None = None  # images of one value are never split


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `python -m data.prepare`."""

    input: InputOptions = field(default_factory=InputOptions)
    output: TrackedOptions = field(default_factory=TrackedOptions)
    pixels: PixelOptions = field(default_factory=PixelOptions)
    split: SplitOptions = field(default_factory=SplitOptions)
    labels: LabelOptions = field(default_factory=LabelOptions)
    columns: ColumnOptions = field(default_factory=ColumnOptions)
    phantom: PhantomOptions = field(default_factory=PhantomOptions)
    provenance: str | None = None  # what the images of a pool were made by and from, in your words

    @property
    def out(self) -> Path:
        """The folder to make: datasets/SOURCE unless --out names another."""
        return self.output.out or DATASETS / self.input.source


FIRST = (  # the options that `--help` shows
    *("source", "root", "extra", "out", "overwrite", "size", "clean", "folds", "seed"),
    "positive",
)
PIXEL = {"fit", "clean"}
SPLIT = {"folds", "test_fraction", "seed"}
FILES = {"root", "on_error"}
LABELS = {"positive", "diagnosis_map", "conflicts"}
TABLES = {"extra", "fold_column", "tables_only"} | LABELS | PIXEL | SPLIT | FILES
COLUMNS = {"table", "image_column", "target_column", "group_column"}
USES = {  # beside source, out, size, overwrite and tracking
    "phantom": SPLIT | {"patients", "prevalence", "best_auc"},
    "pool": PIXEL | FILES | {"provenance"},
    **dict.fromkeys(get_args(Tabular), TABLES),
    "folder": TABLES | COLUMNS,
}


def words(text: str) -> tuple[str, ...]:
    """The words of a comma-separated option."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def check_options(options: PrepareOptions) -> None:
    """Raise UserError for options that are wrong whatever the data, or that do nothing here."""
    from data.images.cleaning import CLEANERS

    check_bounds(options)
    source, native = options.input.source, options.pixels.native
    if source not in USES:
        raise UserError(f"--source {source}: expected {', '.join(USES)}")
    everywhere = {"source", "out", "size", "overwrite", "tracking"}
    if idle := sorted(changed(options).keys() - USES[source] - everywhere):
        flags = ", ".join(map(flag, idle))
        raise UserError(f"{flags}: --source {source} does not use it; leave it out")
    extra, roots = options.input.extra, options.input.root
    if source != "phantom" and len(roots) != 1 + len(extra):
        sources = f"--source {source}" + "".join(f" --extra {name}" for name in extra)
        raise UserError(
            f"{sources} needs --root FOLDER for each source, in this order: expected "
            f"{1 + len(extra)}, found {len(roots)}"
        )
    if native and source in ("phantom", "pool"):
        raise UserError(f"--size native: --source {source} has images of one size only")
    for name in words(options.pixels.clean):
        if name not in CLEANERS:
            raise UserError(f"--clean {name}: expected of {', '.join(CLEANERS)}, comma-separated")
    if options.labels.tables_only and (native or options.pixels.clean):
        raise UserError("--tables-only: no image is read; leave out --size native and --clean")
    if options.provenance is not None and not options.provenance.strip():
        raise UserError("--provenance: empty; say what the images were made by and from")
