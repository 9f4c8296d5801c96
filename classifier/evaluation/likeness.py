"""How unlike the training images others look: where scores are not to be trusted.

Three distances of an image from the training images:

- `features`: of the pooled features of the last map, Mahalanobis (Lee et al. 2018, "A simple
  unified framework for detecting out-of-distribution samples", arXiv:1807.03888, classes as one)
  with a covariance of some hundred training images, shrunk (Ledoit & Wolf 2004).
- `colour`: of mean and deviation of L, a and b (CIELAB), in the same way.
- `sharpness`: of the log of the Laplacian's variance over the brightness's variance, in standard
  deviations: power in high frequencies, at the size at which the model sees an image.

Each is told in units of its reach: a rank among the distances of held-out (validation) images, the
same rank for all three, such that 95% of held-out images are within all of them. An image whose
`distance`, the largest of the three, is above 1 looks unlike the training images, as 5% of held-out
ones do. A small distance is no proof that a score is right.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy.stats import betabinom

from classifier.records import LikenessFacts, LikenessRecord
from data.store import Dataset

HELD_OUT = 0.95  # share of held-out images that a reach holds
FEWEST = 20  # training and held-out images below which there is no scale
SUSPECT, UNLIKE = 0.10, 0.25  # shares of unlike images from which it is said, and warned of
CHANCE = 0.05  # probability of so many unlike images among held-out ones, above which it is not
ODD = 0.5  # difference of the share of square or framed images that is said
SIZES = 2.0  # ratio of median shorter sides that is said
KINDS = ("features", "colour", "sharpness")
COLOURS = 32  # px at which colours are measured: without grain
NOISE = 1.0  # grey levels squared: a flat image has neither contrast nor sharpness
DARK, LIT = 45, 80  # grey levels of a frame's corners, and that the centre has at least
UNKNOWN = (
    "likeness to the training images is unknown: the run is of an earlier version, or had fewer "
    f"than {FEWEST} training or validation images"
)


@dataclass(frozen=True)
class Looks:
    """What is measured of n images."""

    features: np.ndarray  # float32 [n, d]
    colour: np.ndarray  # float64 [n, 6], means and deviations of L, a, b
    sharpness: np.ndarray  # float64 [n]
    framed: np.ndarray  # bool [n]: three or four dark corners round a lit centre
    sides: np.ndarray  # float64 [n, 2], width and height as stored, px; NaN: unknown

    @staticmethod
    def of(images: np.ndarray, features: np.ndarray, sides: np.ndarray, size: int) -> "Looks":
        """Measure uint8 [n, s, s, 3] RGB, as a model of `size` px sees them."""
        pixels = [_measure(image, size) for image in images]
        colour, sharpness, framed = zip(*pixels, strict=True)
        return Looks(
            features.astype(np.float32),
            np.array(colour),
            np.array(sharpness),
            np.array(framed),
            sides,
        )

    @staticmethod
    def joined(parts: Iterable["Looks"]) -> "Looks":
        """Those of all parts, one after another."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return Looks(*(np.concatenate(column) for column in columns))

    @property
    def square(self) -> float | None:
        """Share of square images among those whose sides are known."""
        known = self.sides[np.isfinite(self.sides).all(1)]
        if not len(known):
            return None
        return float(np.mean(np.abs(known[:, 0] / known[:, 1] - 1) < 0.01))

    @property
    def side(self) -> float | None:
        """Median of the shorter side as stored, px."""
        known = self.sides[np.isfinite(self.sides).all(1)]
        return float(np.median(known.min(1))) if len(known) else None


@dataclass(frozen=True)
class Reference:
    """The training images as other images are compared with them."""

    about: LikenessRecord
    features: np.ndarray  # float16 [m, d], of training images

    def distances(self, looks: Looks) -> dict[str, np.ndarray]:
        """By each of KINDS, and the largest (`distance`), float64 [n]; 95% of held-out reach 1."""
        found = _raw(looks, self)
        scaled = {kind: found[kind] / self.about.reach[kind] for kind in KINDS}
        return {"distance": np.max(list(scaled.values()), axis=0), **scaled}


def fit(training: Looks, held_out: Looks) -> Reference | None:
    """The reference, and its scale from held-out images; None where there are too few."""
    from sklearn.covariance import ledoit_wolf, ledoit_wolf_shrinkage  # predict needs none

    if min(len(training.framed), len(held_out.framed)) < FEWEST:
        return None
    features = training.features.astype(np.float16)
    covariance, _ = ledoit_wolf(training.colour)
    ridge = 1e-3 * np.eye(6)  # of squared Lab units: images of one colour
    about = LikenessRecord(
        training_images=len(training.framed),
        held_out_images=len(held_out.framed),
        shrinkage=_short(ledoit_wolf_shrinkage(features.astype(np.float64))),
        colour_mean=tuple(map(_short, training.colour.mean(0))),
        colour_precision=tuple(
            tuple(map(_short, row)) for row in np.linalg.inv(covariance + ridge)
        ),
        sharpness_mean=_short(training.sharpness.mean()),
        sharpness_deviation=_short(max(training.sharpness.std(), 1e-3)),
        reach=dict.fromkeys(KINDS, 1.0),
        square=training.square,
        framed=float(training.framed.mean()),
        side=training.side,
    )
    reference = Reference(about, features)
    reach = _reach(_raw(held_out, reference))
    return Reference(about.model_copy(update={"reach": reach}), reference.features)


# --- a set of images -----------------------------------------------------------------------------


def facts_of(
    distances: dict[str, np.ndarray], looks: Looks, trained_on: LikenessRecord
) -> LikenessFacts:
    """The figures of a set of images."""
    return LikenessFacts(
        images=len(looks.framed),
        held_out_images=trained_on.held_out_images,
        unlike=float(np.mean(distances["distance"] > 1)),
        by={kind: float(np.mean(distances[kind] > 1)) for kind in KINDS},
        square=looks.square,
        framed=float(looks.framed.mean()),
        side=looks.side,
    )


def mean_facts(folds: list[LikenessFacts]) -> LikenessFacts:
    """Of a set that the models of several folds looked at: means over them."""
    by = {kind: float(np.mean([fold.by[kind] for fold in folds])) for kind in KINDS}
    unlike = float(np.mean([fold.unlike for fold in folds]))
    return folds[0].model_copy(update={"unlike": unlike, "by": by})


def is_unlike(facts: LikenessFacts, share: float = UNLIKE) -> bool:
    """True where at least `share` of the images is unlike, and that is not chance.

    Chance: so many of other held-out images would be in 5% of cases, the reach being known from few
    of them (beta-binomial).
    """
    held_out, rank = facts.held_out_images, _rank(facts.held_out_images)
    count = round(facts.unlike * facts.images)
    by_chance = betabinom.sf(count - 1, facts.images, held_out + 1 - rank, rank)
    return facts.unlike >= share and bool(by_chance <= CHANCE)


def sentence(facts: LikenessFacts) -> str:
    """The main figure in words, and what follows from it."""
    told = (
        f"{facts.unlike:.0%} of these images look unlike the training images "
        f"({1 - HELD_OUT:.0%} of held-out ones do)"
    )
    if is_unlike(facts):
        return f"{told}: do not trust these scores"
    if is_unlike(facts, SUSPECT):
        return f"{told}: trust these scores less"
    return told


def reasons(facts: LikenessFacts, trained_on: LikenessRecord) -> list[str]:
    """In what the images differ, in words."""
    found = []
    if is_unlike(facts, SUSPECT):
        found.append("in " + ", ".join(f"{kind} {facts.by[kind]:.0%}" for kind in KINDS))
    for share, usual, what in (
        (facts.square, trained_on.square, "are square"),
        (facts.framed, trained_on.framed, "have dark corners"),
    ):
        if share is not None and usual is not None and abs(share - usual) > ODD:
            found.append(f"{share:.0%} {what} ({usual:.0%} of the training images)")
    if facts.side and trained_on.side:
        ratio = facts.side / trained_on.side
        if max(ratio, 1 / ratio) >= SIZES:
            found.append(f"shorter side {facts.side:.0f} px ({trained_on.side:.0f} px in training)")
    return found


def words(facts: LikenessFacts, trained_on: LikenessRecord) -> str:
    """The sentence, and what the images differ in."""
    return "; ".join([sentence(facts), *reasons(facts, trained_on)])


def in_words(facts: LikenessFacts, trained_on: LikenessRecord) -> str:
    """A line for the screen, of a set, with what it differs in; a warning where it is one."""
    warning = "warning: " if is_unlike(facts, SUSPECT) else ""
    return warning + words(facts, trained_on)


def described(
    by_part: dict[str, LikenessFacts], trained_on: LikenessRecord | None
) -> dict[str, Any] | None:
    """What an evaluation says of each part: its figures, words, and whether they are a warning.

    None where nothing is known.
    """
    if trained_on is None:
        return None
    parts = {
        name: {
            **facts.model_dump(mode="json"),
            "words": words(facts, trained_on),
            "warning": is_unlike(facts, SUSPECT),
        }
        for name, facts in by_part.items()
    }
    return {"training": trained_on.model_dump(mode="json"), "parts": parts}


def stored_sides(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """Width and height of a dataset's images as stored, float64 [n, 2], px; NaN: unknown."""
    columns = dataset.table.iloc[rows][["width", "height"]]
    return columns.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)


# --- an image ------------------------------------------------------------------------------------


def _measure(image: np.ndarray, size: int) -> tuple[np.ndarray, float, bool]:
    """Colour [6], sharpness and whether it is framed, of uint8 [s, s, 3]."""
    if len(image) != size:
        way = cv2.INTER_AREA if len(image) > size else cv2.INTER_LINEAR
        image = cv2.resize(image, (size, size), interpolation=way)
    image = np.ascontiguousarray(image)
    small = cv2.resize(image, (COLOURS, COLOURS), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    edges = cv2.Laplacian(grey, cv2.CV_32F)
    sharpness = math.log((edges.var() + NOISE) / (grey.var() + NOISE))
    side = max(1, size // 16)
    ends, middle = (slice(0, side), slice(-side, None)), slice(size // 4, -size // 4)
    dark = [grey[down, along].mean() < DARK for down in ends for along in ends]
    framed = sum(dark) >= 3 and float(grey[middle, middle].mean()) >= LIT
    colour = np.concatenate([lab.mean(0), lab.std(0)]).astype(np.float64)
    return colour, sharpness, framed


def _raw(looks: Looks, reference: Reference) -> dict[str, np.ndarray]:
    """Distances by kind, float64 [n], each in its own unit."""
    about = reference.about
    off = looks.colour - about.colour_mean
    colour = np.sqrt(np.einsum("ni,ij,nj->n", off, np.array(about.colour_precision), off))
    sharpness = np.abs(looks.sharpness - about.sharpness_mean) / about.sharpness_deviation
    features = _mahalanobis(looks.features, reference.features, about.shrinkage)
    return {"features": features, "colour": colour, "sharpness": sharpness}


def _mahalanobis(features: np.ndarray, training: np.ndarray, shrinkage: float) -> np.ndarray:
    """Float64 [n] of `features` [n, d] from those of training images [m, d].

    The covariance is (1 - s) S + s tr(S) / d I, of shrinkage s. Woodbury's identity needs a matrix
    [m, m] in place of its inverse [d, d].
    """
    known = training.astype(np.float64)
    mean = known.mean(0)
    known, off = known - mean, features.astype(np.float64) - mean
    own = max(shrinkage * float(known.var(0).mean()), 1e-9)  # of every direction
    shared = (1 - shrinkage) / len(known)
    squares = (off**2).sum(1)
    if shared > 0:
        inner = known @ known.T + own / shared * np.eye(len(known))
        along = off @ known.T
        squares = squares - (along * np.linalg.solve(inner, along.T).T).sum(1)
    return np.sqrt(np.maximum(squares, 0) / own)


def _reach(distances: dict[str, np.ndarray]) -> dict[str, float]:
    """By kind, of one rank; another held-out image exceeds any of them in 5% of cases (conformal).

    Ranks and not ratios: a distance whose tail is short would else never be the one that tells.
    """
    ranks = [np.argsort(np.argsort(values, kind="stable")) for values in distances.values()]
    largest, count = np.sort(np.max(ranks, axis=0)), len(ranks[0])
    rank = largest[_rank(count) - 1]
    return {kind: max(_short(np.sort(each)[rank]), 1e-6) for kind, each in distances.items()}


def _rank(held_out: int) -> int:
    """Which of the held-out images' distances, ascending and from 1, is the reach."""
    return min(math.ceil(HELD_OUT * (held_out + 1)), held_out)


def _short(value: float) -> float:
    """Six digits: enough, and readable."""
    return float(f"{value:.6g}")
