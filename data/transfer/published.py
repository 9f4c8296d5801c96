"""Public data sets: where they are published, on what terms, and what to cite."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dermsynth.options import Between, TrackingMode

Name = Literal["ham10000", "isic2019", "siim2020", "isic-archive"]
Count = Annotated[int, Between(0, 10_000_000)]
BY_NC = "CC BY-NC 4.0 (https://creativecommons.org/licenses/by-nc/4.0/): no commercial use"


@dataclass(frozen=True)
class Source:
    """Where a data set is published, and on what terms."""

    page: str  # for people
    licence: str
    citation: str
    base: str  # address that the files' names are put behind; of ham10000 and isic-archive the API
    files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()  # without labels


SOURCES = {
    "ham10000": Source(
        "https://doi.org/10.7910/DVN/DBW86T",
        BY_NC,
        "Tschandl, Rosendahl, Kittler: The HAM10000 dataset, a large collection of multi-source "
        "dermatoscopic images of common pigmented skin lesions. Scientific Data 5, 180161 (2018), "
        "doi:10.1038/sdata.2018.161",
        "https://dataverse.harvard.edu/api",
    ),
    "isic2019": Source(
        "https://challenge.isic-archive.com/data/#2019",
        BY_NC,
        "Tschandl et al.: The HAM10000 dataset. Scientific Data 5, 180161 (2018); Codella et al.: "
        "Skin Lesion Analysis Toward Melanoma Detection, arXiv:1710.05006; Combalia et al.: "
        "BCN20000: Dermoscopic Lesions in the Wild, arXiv:1908.02288",
        "https://isic-challenge-data.s3.amazonaws.com/2019",
        (
            "ISIC_2019_Training_GroundTruth.csv",
            "ISIC_2019_Training_Metadata.csv",
            "ISIC_2019_Training_Input.zip",
        ),
    ),
    "siim2020": Source(
        "https://challenge2020.isic-archive.com/",
        BY_NC,
        "The ISIC 2020 Challenge Dataset, https://doi.org/10.34970/2020-ds01 (c) by ISDIS, 2020; "
        "Rotemberg et al.: A patient-centric dataset of images and metadata for identifying "
        "melanomas using clinical context. Scientific Data 8, 34 (2021), "
        "doi:10.1038/s41597-021-00815-z",
        "https://isic-challenge-data.s3.amazonaws.com/2020",
        (
            "ISIC_2020_Training_GroundTruth_v2.csv",
            "ISIC_2020_Training_Duplicates.csv",
            "ISIC_2020_Training_JPEG.zip",
        ),
        ("ISIC_2020_Test_Metadata.csv", "ISIC_2020_Test_JPEG.zip"),
    ),
    "isic-archive": Source(
        "https://www.isic-archive.com/",
        "of each image its own (CC-0, CC-BY, CC-BY-NC): copyright_license in metadata.csv",
        "name the contributors in attribution.txt, as their licences ask",
        "https://api.isic-archive.com/api/v2/",
    ),
}


@dataclass(frozen=True)
class DownloadOptions:
    """What to fetch."""

    source: tyro.conf.Positional[Name]  # which data set
    out: Path  # folder for it, always said: gigabytes; one with an unfinished download goes on
    test: bool = False  # siim2020: also the test images, which have no labels (7 GB)
    keep_archives: bool = False  # keep the zip files after they are unpacked
    search: str = ""  # isic-archive: query, as 'diagnosis_3:"Melanoma Invasive" AND sex:male'
    limit: Count = 0  # isic-archive: images at most; 0: all that the query finds
    tracking: TrackingMode = "auto"  # W&B where a key is configured, else offline
