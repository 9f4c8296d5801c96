"""PH2 as it is downloaded: BMPs, and a text table whose cells stand between `||`.

The clinical diagnosis is a number: 0 common nevus, 1 atypical nevus, 2 melanoma.
"""

from pathlib import Path

import pandas as pd

from data.sources.listing import Listing, SourceOptions
from data.sources.rows import Rows, listing
from data.sources.tables import check_file, find_table
from dermsynth.errors import UserError

DIAGNOSES = {"0": "common nevus", "1": "atypical nevus", "2": "melanoma"}
FACTS = {
    "licence": "for research and education, as agreed to at its download",
    "citation": "Mendonca et al.: PH2, a dermoscopic image database for research and benchmarking. "
    "EMBC 2013, doi:10.1109/EMBC.2013.6610779",
}


def list_ph2(root: Path, options: SourceOptions) -> Listing:
    """One row an image of PH2_dataset.txt. Raises UserError."""
    path = find_table(root, ("ph2_dataset.txt",))
    if path is None:
        raise UserError(
            f"--root {root}: no PH2_dataset.txt in it or below; it comes with the images of PH2"
        )
    check_file(path, root)
    rows = []
    for number, line in enumerate(path.read_text("latin-1").splitlines(), 1):
        cells = [cell.strip() for cell in line.split("||")]
        if len(cells) < 4 or not cells[1].upper().startswith("IMD"):
            continue  # the header, and the legend below the rows
        if cells[3] not in DIAGNOSES:
            raise UserError(
                f"{path} line {number}: clinical diagnosis {cells[3]!r}; expected 0, 1 or 2"
            )
        rows.append([cells[1], f"{path.name} line {number}", DIAGNOSES[cells[3]]])
    if not rows:
        raise UserError(f"{path}: no row that begins with || IMD...; download it again")
    raw = pd.DataFrame(rows, columns=["image_id", "where", "diagnosis"], dtype=object)
    facts = FACTS | {"metadata": path.name}
    return listing("ph2", root, options, Rows(raw), facts)
