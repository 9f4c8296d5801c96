"""Published data sets as they are downloaded: which tables lie there, and what their columns are.

A Layout is a list of tables. Files that match one entry are read one below the other (training,
validation and test parts), the entries are joined on the image. Images lie in any folder below the
root. What is not said here is passed over: other columns, other tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.images.files import find_files, find_images
from data.sources.columns import told
from data.sources.joined import merged
from data.sources.listing import Listing, SourceOptions
from data.sources.matching import SUFFIX
from data.sources.packed import hdf5_images
from data.sources.rows import Rows, listing, read_rows, stacked
from data.sources.tables import Names, find_tables, read_header
from data.sources.targets import Own
from dermsynth.errors import UserError

SITE = ("anatom_site_general", "anatom_site_general_challenge", "localization", "region")
AGE = ("age_approx", "age_approximate", "age")


@dataclass(frozen=True)
class TableOf:
    """One kind of table of a data set."""

    names: tuple[str, ...]  # of its files, lower case, as fnmatch has them
    needed: Mapping[str, Names]  # column of Rows.raw: column of the file
    optional: Mapping[str, Names] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)  # one column a class: what it means
    none: str = ""  # diagnosis of a row without a 1 in `classes`; "": such a row is a fault
    header: tuple[str, ...] | None = None  # of a file without one
    on: str = "image_id"  # what joins it to the tables before
    must: bool = False  # whether the data set is nothing without it
    adds: bool = False  # whether rows that only it has are images too: those without labels


@dataclass(frozen=True)
class Layout:
    """A published data set."""

    tables: tuple[TableOf, ...]
    licence: str
    citation: str
    own: Own | None = None  # what its column `own` is
    hdf5: bool = False  # whether its images may lie in HDF5 files in place of pictures


ISIC = {
    "age": AGE,
    "sex": "sex",
    "site": SITE,
    "patient_id": "patient_id",
    "lesion_id": "lesion_id",
}
OTHERS = {  # tables of the sources that have a reader of their own
    "ham10000": "ham10000_metadata.csv",
    "isic2019": "isic_2019_training_groundtruth.csv",
    "siim2020": "isic_2020_training_groundtruth_v2.csv",
    "ph2": "ph2_dataset.txt",
}
LAYOUTS = {
    "isic2016": Layout(
        (
            TableOf(
                ("isbi2016_isic_part3*_groundtruth.csv",),
                {"image_id": "image", "own": "target"},
                header=("image", "target"),
                must=True,
            ),
        ),
        licence="CC0",
        citation="Gutman et al.: Skin lesion analysis toward melanoma detection, ISBI 2016. "
        "arXiv:1605.01397",
        own=Own("its ground truth (benign or malignant)"),
    ),
    "isic2017": Layout(
        (
            TableOf(
                ("isic-2017_*_part3_groundtruth.csv",),
                {"image_id": "image_id"},
                classes={"melanoma": "mel", "seborrheic_keratosis": "bkl"},
                none="nv",
                must=True,
            ),
            TableOf(
                ("isic-2017_*_data_metadata.csv",),
                {"image_id": "image_id"},
                {"age": AGE, "sex": "sex"},
            ),
        ),
        licence="CC0",
        citation="Codella et al.: Skin lesion analysis toward melanoma detection, ISBI 2017. "
        "arXiv:1710.05006",
    ),
    "isic2018": Layout(
        (
            TableOf(
                ("isic2018_task3_*_groundtruth.csv", "groundtruth.csv"),
                {"image_id": "image"},
                classes={name: name for name in ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")},
                must=True,
            ),
            TableOf(
                ("isic2018_task3_*_lesiongroupings*.csv",),
                {"image_id": "image", "lesion_id": "lesion_id"},
            ),
            TableOf(
                ("ham10000_metadata*",), {"image_id": "image_id", "lesion_id": "lesion_id"}, ISIC
            ),
        ),
        licence="CC BY-NC 4.0",
        citation="Codella et al.: Skin lesion analysis toward melanoma detection 2018. "
        "arXiv:1902.03368; HAM10000: doi:10.1038/sdata.2018.161",
    ),
    "isic2024": Layout(
        (
            TableOf(
                ("isic_2024_training_groundtruth.csv", "train-metadata.csv"),
                {"image_id": "isic_id", "own": ("malignant", "target")},
                {**ISIC, "diagnosis": ("iddx_full", "iddx_3")},
                must=True,
            ),
            TableOf(
                ("isic_2024_training_supplement.csv", "metadata.csv"),
                {"image_id": "isic_id"},
                {**ISIC, "diagnosis": ("iddx_full", "iddx_3")},
            ),
            TableOf(("test-metadata.csv",), {"image_id": "isic_id"}, ISIC, adds=True),
        ),
        licence="CC BY-NC 4.0",
        citation="Kurtansky et al.: The SLICE-3D dataset. Scientific Data 11 (2024), "
        "doi:10.1038/s41597-024-03743-w",
        own=Own("its column target or malignant"),
        hdf5=True,
    ),
    "milk10k": Layout(
        (
            TableOf(
                ("milk10k_*_metadata.csv",),
                {"image_id": "isic_id", "lesion_id": "lesion_id"},
                {"age": AGE, "sex": "sex", "site": "site"},
                must=True,
            ),
            TableOf(
                ("milk10k_*_groundtruth.csv",),
                {"lesion_id": "lesion_id"},
                classes={
                    **{name: name for name in ("AKIEC", "BCC", "BKL", "DF", "MEL", "NV", "VASC")},
                    **{"SCCKA": "scc", "INF": "inflammatory or infectious"},
                    **{"BEN_OTH": "other benign", "MAL_OTH": "other malignant"},
                },
                on="lesion_id",
                must=True,
            ),
        ),
        licence="CC BY-NC 4.0",
        citation="MILK study team: MILK10k. ISIC Archive (2025), doi:10.34970/648456",
    ),
    "bcn20000": Layout(
        (
            TableOf(
                ("bcn*20k*.csv", "bcn*20000*.csv"),
                {"image_id": ("bcn_filename", "isic_id")},
                {**ISIC, "diagnosis": "diagnosis"},
                must=True,
            ),
        ),
        licence="CC BY-NC 4.0",
        citation="Hernandez-Perez et al.: BCN20000. Scientific Data 11 (2024), "
        "doi:10.1038/s41597-024-03387-w",
    ),
    "pad-ufes-20": Layout(
        (
            TableOf(
                ("metadata.csv",),
                {"image_id": "img_id", "diagnosis": "diagnostic"},
                {**ISIC, "sex": "gender"},
                must=True,
            ),
        ),
        licence="CC BY 4.0",
        citation="Pacheco et al.: PAD-UFES-20. Data in Brief 32 (2020), "
        "doi:10.1016/j.dib.2020.106221",
    ),
    "derm7pt": Layout(
        (
            TableOf(
                ("meta.csv",),
                {"image_id": "derm", "diagnosis": "diagnosis", "lesion_id": "case_num"},
                {"sex": "sex", "site": "location"},
                must=True,
            ),
        ),
        licence="for research, as agreed to at its download",
        citation="Kawahara et al.: Seven-point checklist and skin lesion classification. IEEE JBHI "
        "23 (2019), doi:10.1109/JBHI.2018.2824327",
    ),
    "fitzpatrick17k": Layout(
        (
            TableOf(
                ("fitzpatrick17k*.csv",), {"image_id": "md5hash", "diagnosis": "label"}, must=True
            ),
        ),
        licence="CC BY-NC-SA 3.0",
        citation="Groh et al.: Evaluating deep neural networks trained on clinical images in "
        "dermatology with the Fitzpatrick 17k dataset (2021). arXiv:2104.09957",
    ),
    "ddi": Layout(
        (
            TableOf(
                ("ddi_metadata.csv",),
                {"image_id": "DDI_file", "own": "malignant", "diagnosis": "disease"},
                must=True,
            ),
        ),
        licence="for research, as agreed to at its download",
        citation="Daneshjou et al.: Disparities in dermatology AI performance on a diverse, "
        "curated clinical image set. Science Advances 8 (2022), doi:10.1126/sciadv.abq6147",
        own=Own("its column malignant"),
    ),
}


def list_published(name: str, root: Path, options: SourceOptions) -> Listing:
    """One row an image of the tables of a Layout. Raises UserError."""
    layout, rows, read = LAYOUTS[name], None, []
    files = find_files(root)
    for table in layout.tables:
        paths = find_tables(root, table.names, files)
        if not paths and table.must:
            raise UserError(
                f"--root {root}: no {' or '.join(table.names)} in it or below; it comes with the "
                f"images of {name}"
            )
        if not paths:
            continue
        part = stacked([_read(path, root, table, options) for path in paths])
        rows = part if rows is None else merged(rows, part, table.adds, table.on)
        read += [path.name for path in paths]
    if layout.hdf5 and not options.tables_only and not find_images(root):
        images = hdf5_images(root)
        names = rows.raw["image_id"].map(lambda name: SUFFIX.sub("", name))
        rows.raw = rows.raw.assign(path=[images.get(name) for name in names])
    facts = {"licence": layout.licence, "citation": layout.citation, "metadata": ", ".join(read)}
    return listing(name, root, options, rows, facts, own=layout.own)


def recognised(root: Path) -> str:
    """`; this looks like ISIC 2018: --source isic2018`, for messages; "" where it does not."""
    for name, layout in LAYOUTS.items():
        if all(
            any(_fits(path, root, t) for path in _below(root, t)) for t in layout.tables if t.must
        ):
            return f"; this looks like {name}: --source {name}"
    names = {path.name.lower() for path in find_files(root)}
    for source, table in OTHERS.items():
        if table in names:
            return f"; this looks like {source}: --source {source}"
    return ""


def _below(root: Path, table: TableOf) -> list[Path]:
    try:
        return find_tables(root, table.names)
    except UserError:  # two files of one name
        return []


def _fits(path: Path, root: Path, table: TableOf) -> bool:
    """Whether a file has the columns that are needed."""
    if table.header:
        return True
    try:
        header = {name.lower() for name in read_header(path, root)}
    except UserError:
        return False
    needed = [(names,) if isinstance(names, str) else names for names in table.needed.values()]
    return all(any(name.lower() in header for name in names) for names in needed) and all(
        name.lower() in header for name in table.classes
    )


def _read(path: Path, root: Path, table: TableOf, options: SourceOptions) -> Rows:
    """The rows of one file, with their class where there is one column a class."""
    first = {ours: _first(theirs) for ours, theirs in (table.optional | table.needed).items()}
    rows = read_rows(
        path,
        root,
        (*table.needed.values(), *table.classes),
        tuple(table.optional[ours] for ours in table.optional if ours not in table.needed),
        {theirs: ours for ours, theirs in first.items()},
        options.fold_column if table.must else None,
        header=table.header,
    )
    if "own" in rows.raw:
        own = rows.raw["own"].map(told).astype(np.float64)
        rows.raw["own"] = own.mask(own.isna() & (rows.raw["own"] != ""), np.inf)
    if table.classes:
        _choose_class(rows, table)
    return rows


def _choose_class(rows: Rows, table: TableOf) -> None:
    """Put `diagnosis` in the place of one column a class."""
    votes = rows.raw[list(table.classes)].map(lambda word: told(word) if word else 0.0)
    total = votes.sum(axis=1, skipna=False)
    chosen = votes.fillna(0).idxmax(axis=1).map(dict(table.classes)).where(total == 1, table.none)
    rows.raw = rows.raw.drop(columns=list(table.classes)).assign(diagnosis=chosen)
    named = "image_id" in rows.raw
    rows.raw = rows.raw if named else rows.raw.assign(image_id=rows.raw[table.on])
    wrong = ~total.isin([0, 1] if table.none else [1])
    rows.reject(wrong, "ground truth is not 1 in one column and 0 in the others")
    rows.raw = rows.raw if named else rows.raw.drop(columns="image_id")


def _first(names: Names) -> str:
    return names if isinstance(names, str) else names[0]
