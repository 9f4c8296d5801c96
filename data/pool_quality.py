"""What is wrong with synthetic images: findings as a record, and those that pixels alone give.

Seconds, and no network: `classifier.train` looks at every pool so, whoever made it. The generator's
evaluation adds what features and a trained network find (gan.evaluation.gate).
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from data.store import ImageStore
from dermsynth.records import Record
from dermsynth.seeds import generator
from dermsynth.symmetries import COUNT, turn

Code = Literal["collapsed", "unlike-real", "barely-trained", "copies", "blurred", "easily-told"]
Severity = Literal["warning", "fail"]

THUMBNAIL = 16  # side at which pixels are compared: a shifted or slightly changed copy is near
COMPARED = 200  # images of a kind, at most
LEAST_COMPARED = 10  # images of a kind, from which variety and sharpness are told

# Bounds lie between what was measured of good and of bad images of HAM10000 and of the phantom, at
# 30 and at 200 images; docs/guides/gan.md, "Quality", has the figures.
ONE_IMAGE, FEW_IMAGES = 0.3, 0.65  # variety: one or some images repeated have 0.15, real ones 0.75
BLURRED, SOFT = 0.15, 0.4  # sharpness: of a Gaussian blur of 1 px 0.11 to 0.30, of real ones 0.9
FLAT, MOST_FLAT = 0.25, 0.5  # contrast of the least that a real image has; share of images below


class FindingRecord(Record):
    """One thing that is wrong with the images."""

    code: Code
    severity: Severity
    sentence: str  # with the figure and its bound, for people
    value: float
    bound: float  # on whose wrong side the value lies


class QualityRecord(Record):
    """All that was found."""

    findings: list[FindingRecord]  # failures first
    not_checked: list[str]  # what could not be looked at and why, in sentences

    def found(self, code: Code, severity: Severity | None = None) -> bool:
        """Whether there is a finding of this code, and of this severity where one is named."""
        return any(one.code == code and severity in (None, one.severity) for one in self.findings)

    @property
    def failed(self) -> bool:
        """Whether a verdict about these images says nothing about a working generator."""
        return any(one.severity == "fail" for one in self.findings)

    @property
    def words(self) -> str:
        """The codes, each once, in one line: `collapsed, blurred (warning)`; empty for none."""
        worst: dict[str, Severity] = {}
        for one in self.findings:
            worst.setdefault(one.code, one.severity)
        return ", ".join(
            code + ("" if severity == "fail" else " (warning)") for code, severity in worst.items()
        )


def quality(findings: list[FindingRecord], not_checked: list[str]) -> QualityRecord:
    """The record of some findings: failures first, else in their order."""
    ordered = sorted(findings, key=lambda one: one.severity != "fail")
    return QualityRecord(findings=ordered, not_checked=not_checked)


def finding(
    code: Code, severity: Severity, sentence: str, value: float, bound: float
) -> FindingRecord:
    """One finding."""
    return FindingRecord(code=code, severity=severity, sentence=sentence, value=value, bound=bound)


class PixelRecord(Record):
    """Synthetic images against real ones, by their pixels. 1 is as real ones; ratios of figures."""

    variety: float  # mean distance of two synthetic images over that of two real ones
    apart: float  # median distance to the most alike other one, likewise
    sharpness: float  # median variance of the Laplacian, likewise
    contrast: float  # share of synthetic images with less than FLAT of any real image's contrast
    n: int  # images of either kind that were compared


@dataclass(frozen=True)
class _Looks:
    """What is measured of some images."""

    variety: float
    apart: float
    sharpness: float
    contrasts: np.ndarray  # float [n]


def compare_pixels(
    synthetic: np.ndarray | ImageStore, real: np.ndarray | ImageStore, seed: int
) -> PixelRecord | None:
    """Variety, sharpness and contrast of synthetic against real images; None for fewer than 10.

    Distances are between pictures of 16 x 16 px, the least over the square's eight symmetries, so
    that noise on one image or a turned one makes no variety. Sharpness is that of grey levels at
    the smaller one's size.

    Parameters
    ----------
    synthetic, real : uint8 [n, s, s, 3], RGB, any number and size of either
    seed : of the choice of at most 200 of each, as many of one as of the other
    """
    n = min(len(synthetic), len(real), COMPARED)
    if n < LEAST_COMPARED:
        return None
    side = min(synthetic.shape[1], real.shape[1])
    ours, theirs = (
        _looks(_some(images, n, side, seed, kind))
        for images, kind in ((synthetic, "synthetic"), (real, "real"))
    )
    tiny = 1e-6  # of a real set that is one image itself
    return PixelRecord(
        variety=ours.variety / max(theirs.variety, tiny),
        apart=ours.apart / max(theirs.apart, tiny),
        sharpness=ours.sharpness / max(theirs.sharpness, tiny),
        contrast=float((ours.contrasts < FLAT * theirs.contrasts.min()).mean()),
        n=n,
    )


def pixel_quality(figures: PixelRecord | None) -> QualityRecord:
    """`collapsed` and `blurred`, as pixels tell; None: too few images to tell."""
    if figures is None:
        return quality(
            [],
            [
                "Variety and sharpness were not looked at: fewer than "
                f"{LEAST_COMPARED} synthetic or real images."
            ],
        )
    return quality([*_collapsed(figures), *_blurred(figures)], [])


def quality_warning(
    synthetic: np.ndarray | ImageStore, real: np.ndarray | ImageStore, rows: np.ndarray
) -> str | None:
    """What pixels say is wrong with a pool, in one line; None where they find nothing.

    `rows`, int64 [n], of `real`: images of the pool's class; at most 200 of them are read.
    """
    chosen = generator(0, "pool quality", "rows").permutation(rows)[:COMPARED]
    figures = compare_pixels(synthetic, np.asarray(real[np.sort(chosen)]), 0)
    found = pixel_quality(figures)
    return " ".join([*(one.sentence for one in found.findings), *found.not_checked]) or None


def _collapsed(figures: PixelRecord) -> list[FindingRecord]:
    """The gravest reason why the images are few or one, if any."""
    if figures.contrast > MOST_FLAT:
        words = (
            f"{figures.contrast:.0%} of the images are all but one flat colour (bound "
            f"{MOST_FLAT:.0%})."
        )
        return [finding("collapsed", "fail", words, figures.contrast, MOST_FLAT)]
    for value, words in (
        (figures.variety, "two images differ"),
        (figures.apart, "an image differs from the most alike other one"),
    ):
        for bound, severity in ((ONE_IMAGE, "fail"), (FEW_IMAGES, "warning")):
            if value < bound:
                what = "All but one and the same images" if severity == "fail" else "Little variety"
                sentence = f"{what}: {words} by {value:.2f} of what real images do (bound {bound})."
                return [finding("collapsed", severity, sentence, value, bound)]
    return []


def _blurred(figures: PixelRecord) -> list[FindingRecord]:
    for bound, severity in ((BLURRED, "fail"), (SOFT, "warning")):
        if figures.sharpness < bound and figures.contrast <= MOST_FLAT:  # else that is why
            sentence = (
                f"{'Blurred' if severity == 'fail' else 'Softer than real images'}: "
                f"{figures.sharpness:.2f} of their sharpness (variance of the Laplacian; bound "
                f"{bound})."
            )
            return [finding("blurred", severity, sentence, figures.sharpness, bound)]
    return []


def versions(images: np.ndarray) -> np.ndarray:
    """All eight symmetries of every image: [n, s, s, 3] -> [8, n, s, s, 3], identities first."""
    return np.stack([turn(images, number) for number in range(COUNT)])


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Small flat pictures of all eight symmetries: uint8 [n, s, s, 3] -> float32 [8, n, pixels]."""
    side = (THUMBNAIL, THUMBNAIL)
    small = [cv2.resize(picture, side, interpolation=cv2.INTER_AREA) for picture in images]
    return versions(np.stack(small).astype(np.float32)).reshape(COUNT, len(images), -1)


def _some(images: np.ndarray | ImageStore, n: int, side: int, seed: int, kind: str) -> np.ndarray:
    """uint8 [n, side, side, 3]: a random choice, reduced to `side`."""
    rows = np.sort(generator(seed, "pool quality", kind).permutation(len(images))[:n])
    chosen = np.asarray(images[rows])
    if chosen.shape[1] == side:
        return chosen
    return np.stack([cv2.resize(i, (side, side), interpolation=cv2.INTER_AREA) for i in chosen])


def _looks(images: np.ndarray) -> _Looks:
    small = thumbnails(images)
    squares = np.square(small[0]).sum(1)
    distances = np.full((len(images), len(images)), np.inf)
    for version in small:  # a turned picture has the same sum of squares
        squared = squares[:, None] + squares[None] - 2 * version @ small[0].T
        distances = np.minimum(distances, np.sqrt(np.maximum(squared, 0)))
    np.fill_diagonal(distances, np.nan)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) for image in images]
    return _Looks(
        variety=float(np.nanmean(distances)),
        apart=float(np.median(np.nanmin(distances, 1))),
        sharpness=float(np.median([cv2.Laplacian(one, cv2.CV_32F).var() for one in grey])),
        contrasts=np.array([one.std() for one in grey]),
    )
