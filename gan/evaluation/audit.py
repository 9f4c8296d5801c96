"""Shortcut audit: how easily are synthetic images told from real ones, whatever they show?

A classifier that is trained with synthetic images, all of them malignant, may learn "synthetic" in
place of "malignant". How easy that is, a small network tells that is trained to do nothing else:
its AUC on images that it has not seen, beside the AUCs of the same network for blurred real images
against real ones, and for real against real ones. Whether a classifier did learn it,
`shortcut_score` tells from benign images of the same generator.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from data.provenance import Provenance
from dermsynth import progress
from dermsynth.device import Compute
from dermsynth.group_bootstrap import clustered, count_pairs, interval, resampled
from dermsynth.optimizers import settle
from dermsynth.records import Record
from dermsynth.seeds import generator, seed_torch
from dermsynth.symmetries import COUNT, turn_each
from gan.evaluation.features import as_input
from gan.evaluation.power import SpectrumRecord, spectrum

CROP = 64  # px: at native scale, since a shortcut is in texture as often as in shape
WIDTH = 16  # channels of the first layer
STEPS, BATCH, RATE = 400, 32, 3e-3  # AdamW, one cycle; half of each batch is real
VIEWS = 4  # crops of an image whose scores are averaged
LEAST = 30  # held-out, training-half and unseen synthetic images that an AUC needs
MOST = 1000  # images of a kind, at most
BLUR = 1.0  # px, standard deviation of the blur that stands for a poor generator
REPLICATES, ALPHA = 1000, 0.05


class AucRecord(Record):
    """An AUC with its 95% interval over groups; None where there are too few images."""

    auc: float | None
    low: float | None
    high: float | None
    n_real: int  # images that it was measured on
    n_other: int  # synthetic, blurred, or real of the other half


class AuditRecord(Record):
    """How well a small network tells images from real ones that it has not seen."""

    synthetic: AucRecord
    blurred: AucRecord  # real images blurred by a Gaussian of `blur`, for scale
    real: AucRecord  # halves of the training part: what chance does
    blur: float  # px
    spectrum: SpectrumRecord
    benign: str  # how benign images of the same generator can be scored, in words
    missing: str | None  # why there is no AUC, in words


class ShortcutScore(Record):
    """What a trained classifier makes of benign synthetic images."""

    auc: float | None  # above 0.5: synthetic benign images are taken for more malignant
    low: float | None
    high: float | None
    n_synthetic: int
    n_real: int


@dataclass(frozen=True)
class _Side:
    """Images of one kind, uint8 [n, s, s, 3], and their groups, [n]."""

    images: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: np.ndarray) -> "_Side":
        return _Side(self.images[rows], self.groups[rows])


def audit_pool(
    synthetic: np.ndarray,
    training: np.ndarray,
    held_out: np.ndarray,
    groups: np.ndarray,
    compute: Compute,
    seed: int,
    provenance: Provenance | None = None,
) -> AuditRecord:
    """How easily synthetic images are told from real malignant ones.

    Half of the synthetic images are trained on, the others are told from the held-out ones. At most
    1,000 images of a kind are looked at. Three trainings of 400 steps, together half a minute on
    one core at 128 px; the same figures for the same seed and device. An AUC needs 30 held-out
    images, 60 training and 60 synthetic ones; with fewer there is none, and `missing` says so.

    Parameters
    ----------
    synthetic, training, held_out : uint8 [n, s, s, 3] RGB, of one size; the real ones malignant
    groups : [training + held_out], of training and then of held-out images
    compute : where to train
    seed : of the choice of images, the weights and the order
    provenance : of the synthetic images, to say whether benign ones can be had
    """
    n = len(training)
    known = _some(_Side(training, groups[:n]), seed, "training")
    unseen = _some(_Side(held_out, groups[n:]), seed, "held-out")
    own = np.array([f"synthetic {i}" for i in range(len(synthetic))])
    made = _some(_Side(synthetic, own), seed, "synthetic")
    missing = _missing(len(unseen), len(known), len(made))
    aucs = [AucRecord(auc=None, low=None, high=None, n_real=0, n_other=0)] * 3
    if missing is None:
        half = len(made) // 2
        left, right = _halves(known, seed, "halves")
        with progress.bar(3 * STEPS, "shortcut audit", "steps") as bar:
            aucs = [
                _told_apart(*sides, compute, seed, bar.update)
                for sides in (
                    (known, made[np.arange(half)], unseen, made[np.arange(half, len(made))]),
                    (known, _blurred(known), unseen, _blurred(unseen)),
                    _quarters(left, right, seed),
                )
            ]
    return AuditRecord(
        **dict(zip(("synthetic", "blurred", "real"), aucs, strict=True)),
        blur=BLUR,
        spectrum=spectrum(made.images, known.images, unseen.images),
        benign=benign_words(provenance),
        missing=missing,
    )


def shortcut_score(
    synthetic_benign: np.ndarray, real_benign: np.ndarray, groups: np.ndarray | None = None
) -> ShortcutScore:
    """AUC of benign synthetic against benign real images, by a trained classifier's scores.

    Does a classifier that saw synthetic malignant images take "synthetic" for "malignant"? Then
    benign images of the same generator get higher scores than real benign ones: an AUC above 0.5.
    It is no proof: images that the generator failed to make benign do the same, so compare it with
    the AUC that a classifier trained on real images alone gives the same images. Undefined (None)
    with fewer than two images of either kind.

    Parameters
    ----------
    synthetic_benign, real_benign : float [n], [m], scores of malignancy, of images that were not
        trained on
    groups : [m], of the real images; those of one patient or lesion count together
    """
    n, m = len(synthetic_benign), len(real_benign)
    names = np.arange(m) if groups is None else groups
    made = np.array([f"synthetic {i}" for i in range(n)])
    scores = np.concatenate([synthetic_benign, real_benign])
    auc, low, high = grouped_auc(
        np.arange(n + m) < n, np.concatenate([made, names.astype(str)]), scores
    )
    return ShortcutScore(auc=auc, low=low, high=high, n_synthetic=n, n_real=m)


def makes_benign(provenance: Provenance) -> bool:
    """Whether the generator can make benign images too: it has learned them as a class."""
    return provenance.generator is not None and any(
        one.target == 0 for one in provenance.generator.classes
    )


def benign_words(provenance: Provenance | None) -> str:
    """How images of target 0 of whatever made these can be scored; the page names the target."""
    if provenance is not None and makes_benign(provenance):
        return "this generator makes them too: shortcut_score compares them with real ones"
    if provenance is not None and provenance.generator is not None:
        return "this generator makes none (--classes target trains one that does)"
    return "what made these images is not known to make any"


# --- which images --------------------------------------------------------------------------------


def _missing(held_out: int, training: int, synthetic: int) -> str | None:
    for count, least, words in (
        (held_out, LEAST, "held-out images"),
        (training, 2 * LEAST, "training images"),
        (synthetic, 2 * LEAST, "synthetic images"),
    ):
        if count < least:
            return f"{count} {words}, {least} are needed to tell how easily images are told apart"
    return None


def _some(side: _Side, seed: int, kind: str) -> _Side:
    rows = generator(seed, "gan/audit", kind).permutation(len(side))[:MOST]
    return side[rows]


def _halves(side: _Side, seed: int, purpose: str) -> tuple[_Side, _Side]:
    """Two parts with as many images, as far as whole groups allow."""
    names, members, sizes = np.unique(side.groups, return_inverse=True, return_counts=True)
    order = generator(seed, "gan/audit", purpose).permutation(len(names))
    first = order[np.cumsum(sizes[order]) <= len(side) / 2]
    chosen = np.isin(members, first)
    return side[np.flatnonzero(chosen)], side[np.flatnonzero(~chosen)]


def _quarters(left: _Side, right: _Side, seed: int) -> tuple[_Side, _Side, _Side, _Side]:
    """Of either half one part to learn from and one to test on: left, right, left, right."""
    known, unseen = zip(*(_halves(side, seed, "quarters") for side in (left, right)), strict=True)
    return (*known, *unseen)


def _blurred(side: _Side) -> _Side:
    images = np.stack([cv2.GaussianBlur(image, (0, 0), BLUR) for image in side.images])
    return _Side(images, side.groups)


# --- a network that tells them apart -------------------------------------------------------------


class Teller(nn.Module):
    """Crops float [n, 3, s, s] in 0..1 -> logits [n]: high where they are not real.

    No pixel is lost at its first layer, which sees blocks of 2 x 2 px.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = [12, WIDTH, 2 * WIDTH, 2 * WIDTH, 2 * WIDTH]
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        for number, inner in enumerate(widths[:-1]):
            outer, stride = widths[number + 1], 2 if number else 1
            layers += [nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)]
            layers.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits float32 [n]."""
        return self.head(self.layers(2 * x - 1).float().mean((2, 3)))[:, 0]


def _told_apart(
    real: _Side,
    other: _Side,
    real_unseen: _Side,
    other_unseen: _Side,
    compute: Compute,
    seed: int,
    tick: Callable[[], object],
) -> AucRecord:
    """Train on the first two sides; the AUC on the last two."""
    network = _train(real.images, other.images, compute, seed, tick)
    both = np.concatenate([other_unseen.images, real_unseen.images])
    is_other = np.arange(len(both)) < len(other_unseen)
    names = np.concatenate([other_unseen.groups.astype(str), real_unseen.groups.astype(str)])
    auc, low, high = grouped_auc(is_other, names, _scores(network, both, compute, seed))
    n, m = len(real_unseen), len(other_unseen)
    return AucRecord(auc=auc, low=low, high=high, n_real=n, n_other=m)


def _train(
    real: np.ndarray, other: np.ndarray, compute: Compute, seed: int, tick: Callable[[], object]
) -> Teller:
    """One cycle of AdamW; both kinds are seen under the same symmetries, as many of either."""
    seed_torch(seed, "gan/audit")
    network = Teller().to(compute.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS + 1)
    settle(compute.device, [optimizer], [network])
    compute.step()
    labels = torch.arange(BATCH, device=compute.device) % 2
    for step in range(STEPS):
        rng = generator(seed, "gan/audit", "step", step)
        crops = np.empty((BATCH, *_crop_shape(real)), np.uint8)
        for kind, images in enumerate((real, other)):
            rows = rng.integers(0, len(images), BATCH // 2)
            crops[kind::2] = _crops(images[rows], rng)
        logits = network(as_input(crops, compute))
        loss = F.binary_cross_entropy_with_logits(logits, labels.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
        compute.step()
        tick()
    return network.eval()


@torch.no_grad()
def _scores(network: Teller, images: np.ndarray, compute: Compute, seed: int) -> np.ndarray:
    """Mean logits over VIEWS crops of each image: float64 [n]."""
    rng = generator(seed, "gan/audit", "views")
    total = np.zeros(len(images))
    for _ in range(VIEWS):
        crops = _crops(images, rng)
        for at in range(0, len(images), 4 * BATCH):
            rows = np.arange(at, min(at + 4 * BATCH, len(images)))
            batch = as_input(crops[compute.filled(rows, 4 * BATCH)], compute)
            total[rows] += network(batch).double().cpu().numpy()[: len(rows)]
    return total / VIEWS


def _crop_shape(images: np.ndarray) -> tuple[int, int, int]:
    side = min(CROP, images.shape[1] // 2 * 2)
    return side, side, 3


def _crops(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop of each image in a random one of the eight symmetries: uint8 [n, c, c, 3]."""
    side, room = _crop_shape(images)[0], images.shape[1]
    places = rng.integers(0, room - side + 1, (len(images), 2))
    cut = np.stack(
        [image[y : y + side, x : x + side] for image, (y, x) in zip(images, places, strict=True)]
    )
    return turn_each(cut, rng.integers(0, COUNT, len(images)))


def grouped_auc(
    positive: np.ndarray, names: np.ndarray, scores: np.ndarray
) -> tuple[float | None, float | None, float | None]:
    """AUC and its 95% interval over groups; None with fewer than two of either kind."""
    if min(positive.sum(), (~positive).sum()) < 2:
        return None, None, None
    groups = np.unique(names, return_inverse=True)[1].astype(np.int64)
    pairs = count_pairs(positive, groups, scores[None], None)
    auc, _, df = clustered(pairs)
    low, high = interval(resampled(pairs, REPLICATES, 0), df, ALPHA, (0.0, 1.0))
    return auc, low, high
