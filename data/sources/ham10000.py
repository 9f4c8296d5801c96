"""HAM10000 as it is downloaded: images in any folders below the root, and the metadata CSV.

Own images in the same layout work too; of the CSV only image_id, lesion_id and dx are needed.
"""

from pathlib import Path

from data.sources.listing import Listing, SourceOptions
from data.sources.rows import listing, read_rows
from data.sources.tables import find_table
from dermsynth.errors import UserError

NAMES = ("ham10000_metadata.csv", "ham10000_metadata.tab", "ham10000_metadata")
NEEDED = ("image_id", "lesion_id", "dx")
OPTIONAL = ("patient_id", "age", "sex", "localization")
FACTS = {
    "licence": "CC BY-NC 4.0",
    "citation": "Tschandl, Rosendahl, Kittler: The HAM10000 dataset. Scientific Data 5 (2018), "
    "doi:10.1038/sdata.2018.161",
}


def list_ham10000(root: Path, options: SourceOptions) -> Listing:
    """One row an image of the CSV. Raises UserError."""
    path = find_table(root, NAMES)
    if path is None:
        raise UserError(
            f"--root {root}: no HAM10000_metadata.csv in it or below; it comes with the images of "
            f"HAM10000 (for own images write one with the columns {', '.join(NEEDED)})"
        )
    names = {"dx": "diagnosis", "localization": "site"}
    filled = ("diagnosis",)
    rows = read_rows(path, root, NEEDED, OPTIONAL, names, options.fold_column, filled)
    return listing("ham10000", root, options, rows, FACTS | {"metadata": path.name})
