"""Which pictures of a folder show lesions: masks, superpixels and their like lie beside them.

Public data sets bring them in one folder with the images, or in a folder of their own under the
images' names. What is left out is told by its kind and number; nothing is passed over in silence.
"""

import itertools
import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from data.images.files import BadImage, Encoded, escaped, find_files, leads_out, out_of, read_file
from data.images.formats import HEAD, SUFFIXES, is_picture
from data.images.opening import open_any
from dermsynth.errors import counted

ENDS = {  # kind: how the name of such a file ends, behind the name of its image
    "superpixels": r"superpixels?",
    "masks": r"segmentations?|segmented|seg|masks?|lesion|binary|ground ?truth|gt|labels?",
    "attribute maps": r"attribute[ _.-]\w+|features?",
    "contours": r"contours?|borders?|outline",
    "regions": r"roi|r\d+[ _.-]label\d*",
    "thumbnails": r"thumb|thumbs|thumbnails?|preview",
    "overlays": r"overlays?|annotated|annotations?",
}
BESIDE = {
    kind: re.compile(rf"[ _.-](?:{words})(?:[ _.-]?\d{{1,2}})?$") for kind, words in ENDS.items()
}
FOLDERS = {  # word of a folder's name: kind of what lies in it under the names of images
    **dict.fromkeys(("superpixel", "superpixels"), "superpixels"),
    **dict.fromkeys(("mask", "masks", "segmentation", "segmentations", "groundtruth"), "masks"),
    **dict.fromkeys(("truth", "truths", "groundtruths", "label", "labels"), "masks"),
    **dict.fromkeys(("attribute", "attributes"), "attribute maps"),
    **dict.fromkeys(("contour", "contours", "borders"), "contours"),
    **dict.fromkeys(("roi", "rois"), "regions"),
    **dict.fromkeys(("thumb", "thumbs", "thumbnail", "thumbnails"), "thumbnails"),
    **dict.fromkeys(("annotation", "annotations", "overlay", "overlays"), "overlays"),
}
NO_SUFFIX = "a picture whose name does not end like one; rename it, to .jpg or what it is"
TEXTS = (".csv", ".tsv", ".txt", ".json", ".xml", ".md", ".html", ".xlsx", ".npy", ".parquet")
MASK_SIDE = 256  # px at which a mask is told from a picture
FEW_COLOURS, GREY_SPREAD, NEAR_ENDS, SHARE = 8, 3, 10, 0.97  # of a mask; JPEGs blur its edges


@dataclass(frozen=True)
class Pictures:
    """What lies below a folder. Every list is sorted."""

    images: list[Path]  # to be used, formats that are not read among them
    left_out: dict[str, list[Path]] = field(default_factory=dict)  # by kind: beside their images
    bad: dict[Path, str] = field(default_factory=dict)  # what is no image and why: to be told

    def counts(self) -> dict[str, int]:
        """Number of files that were left out, by kind."""
        return {kind: len(paths) for kind, paths in self.left_out.items() if paths}

    def hint(self, root: Path) -> str:
        """The first of what is told, to stand behind a message; "" where there is nothing."""
        first = next(iter(self.bad.items()), None)
        return f"; {escaped(first[0].relative_to(root))} is {first[1]}" if first else ""

    def notes(self) -> list[str]:
        """A line about what was left out, or none."""
        kinds = [f"{kind} of {counted(count, 'image')}" for kind, count in self.counts().items()]
        return [f"{', '.join(kinds)} (ignored)"] if kinds else []


def find_pictures(root: Path, by_content: bool = True) -> Pictures:
    """All pictures below `root`, hidden files left out, sorted into images and what is none.

    `X_mask`, `X_superpixels` ... are left out where an image X is below `root`, and so is the
    files of a folder of masks that have the names of images elsewhere; without such images each is
    a picture like others. With `by_content` also a mask beside its image under the same name
    (`X.jpg`, `X.png`), which is told by its few colours.

    `bad` has links to folders that lead out of `root` and files that begin like a picture and are
    not called so. Raises UserError for a folder that may not be read.
    """
    files = find_files(root)
    named = [path for path in files if path.name.lower().endswith(SUFFIXES)]
    bad = {path: out_of(path, root) for path in files if path.is_dir() and leads_out(path, root)}
    images = [path for path in named if path not in bad]
    left_out: dict[str, list[Path]] = defaultdict(list)
    kind_of = _kinds(root, images)
    for path, kind in kind_of.items():
        left_out[kind].append(path)
    images = [path for path in images if path not in kind_of]
    if by_content:
        masks = _masks_of_one_name(images, root)
        if masks:
            left_out["masks"] += masks
            images = [path for path in images if path not in masks]
    whole = {str(path) for path in images}
    for path in files:
        if path in bad or path.name.lower().endswith((*SUFFIXES, *TEXTS)):
            continue
        if not leads_out(path, root) and _begins_like_a_picture(path):
            original = re.match(r"(.+\.\w{3,4})(?:_original|~|\.bak|\.orig|\.old)$", str(path))
            if original and original[1] in whole:  # what exiftool and editors leave
                left_out["backups"].append(path)
            else:
                bad[path] = NO_SUFFIX
    return Pictures(images, {kind: sorted(paths) for kind, paths in sorted(left_out.items())}, bad)


def folded(name: str) -> str:
    """A name as file systems of Windows and macOS compare it: case and Unicode form folded."""
    return unicodedata.normalize("NFC", name).casefold()


def is_mask(path: Path) -> bool:
    """Whether a picture has the few colours of a mask: eight at most, or grey near 0 and 255.

    False for what cannot be read. The caller has checked that it does not lead out of its root.
    """
    try:
        image = open_any(read_file(Encoded(path)))
        size = (min(MASK_SIDE, image.width), min(MASK_SIDE, image.height))
        pixels = (
            np.asarray(image.resize(size, Image.Resampling.NEAREST).convert("RGB"))
            .reshape(-1, 3)
            .astype(int)
        )
    except Exception:  # a damaged file may raise nearly anything in its decoder
        return False
    if len(np.unique(pixels, axis=0)) <= FEW_COLOURS:
        return True
    grey = np.ptp(pixels, axis=1).max() <= GREY_SPREAD
    ends = (pixels[:, 0] <= NEAR_ENDS) | (pixels[:, 0] >= 255 - NEAR_ENDS)
    return bool(grey and ends.mean() >= SHARE)


def _kinds(root: Path, paths: list[Path]) -> dict[Path, str]:
    """The kind of each file that is none of a lesion, by its name and its folder."""
    stems = {path: folded(path.stem) for path in paths}
    words = {folder: _folder_kind(folder.relative_to(root)) for folder in {p.parent for p in paths}}
    images = {stem for path, stem in stems.items() if words[path.parent] is None}
    every = set(stems.values())
    kinds = {}
    # Where one is the mask of an image, all of that folder are: images may be missing.
    aside = {path.parent for path, stem in stems.items() if words[path.parent] and stem in images}
    for path, stem in stems.items():
        word = words[path.parent] if path.parent in aside else None
        if kind := word or next((k for k, image in ends_of(stem) if image in every), None):
            kinds[path] = kind
    return kinds


def ends_of(stem: str) -> list[tuple[str, str]]:
    """Kinds that the end of a folded name tells, each with the name of the image in front."""
    ends = [(kind, end.search(stem)) for kind, end in BESIDE.items()]
    return [(kind, stem[: end.start()]) for kind, end in ends if end]


def _folder_kind(folder: Path) -> str | None:
    """What the name of a folder, or of one above it, says that its files are."""
    words = re.split(r"[^a-z]+", folded(str(folder)))
    return next((FOLDERS[word] for word in words if word in FOLDERS), None)


def _masks_of_one_name(paths: list[Path], root: Path) -> set[Path]:
    """Masks that have the name of an image in the same folder, told by their content."""
    groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in paths:
        groups[path.parent, folded(path.stem)].append(path)
    several = (group for group in groups.values() if len(group) > 1)
    return set(itertools.chain.from_iterable(masks_among(group, root) for group in several))


def masks_among(paths: list[Path], root: Path) -> list[Path]:
    """The masks among files of one name, unless all are: then nothing is told apart."""
    masks = [path for path in paths if not leads_out(path, root) and is_mask(path)]
    return masks if len(masks) < len(paths) else []


def _begins_like_a_picture(path: Path) -> bool:
    try:
        return is_picture(read_file(Encoded(path, 0, HEAD)))
    except BadImage:  # shorter, empty, or no file at all
        return False
