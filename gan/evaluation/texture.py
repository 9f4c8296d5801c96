"""Texture at the images' own scale: what KID of whole-image features does not see.

Four figures, each beside that of real images and of real images that were blurred a little: what
the first stage of the diagnosis network makes of fine detail and (gan.evaluation.audit) how well a
small network tells crops apart, neither of a relative of any discriminator; the power spectrum,
which a generator may have been trained on (gan.spectra): then it is no independent figure; and the
weave along the axes, which the eye sees before all others and none of these does.
"""

from typing import TYPE_CHECKING

import cv2
import numpy as np

from dermsynth.device import Compute
from dermsynth.records import Record
from gan.evaluation.features import FeatureNetwork, extract
from gan.evaluation.metrics import kid, kid_spread
from gan.evaluation.power import gaps

if TYPE_CHECKING:
    from gan.evaluation.subject import Images

BLUR = 1.0  # px, standard deviation: what a generator that draws no detail would do
LEAST_SPREAD = 1e-6  # of a feature over the training images; below, it says nothing


class TextureKidRecord(Record):
    """KID of early maps (diagnosis_network.EarlyMaps) against held-out images, in plain units."""

    kid: float
    kid_std: float  # one standard error


class TextureRecord(Record):
    """How near the fine detail of synthetic images is to that of real ones."""

    network: str | None  # whose early maps; None: there is no diagnosis network, nor these three
    synthetic: TextureKidRecord | None
    blurred: TextureKidRecord | None  # training images blurred by `blur`
    real: TextureKidRecord | None  # training images
    blur: float  # px
    # mean distance of the power spectrum from that of held-out images, dB
    spectrum_synthetic: float
    spectrum_blurred: float
    spectrum_real: float
    # largest difference to held-out images in power along the axes less between them, dB;
    # None: of an evaluation before there was this figure
    weave_synthetic: float | None = None
    weave_real: float | None = None


def texture(
    images: "Images", network: FeatureNetwork | None, compute: Compute, seed: int
) -> TextureRecord:
    """Scores of the synthetic images, of as many training ones, and of these blurred.

    Parameters
    ----------
    images : synthetic, training and held-out ones
    network : of early maps (diagnosis_network.EarlyMaps); None: the spectra alone
    compute : where
    seed : of the choice of training images, and of KID's halves
    """
    n = min(len(images.synthetic), len(images.training))
    rows = images.some("training", n, seed)
    real, synthetic = images.training[rows], images.synthetic[:n]
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), BLUR) for image in real])
    kinds = {"synthetic": synthetic, "blurred": blurred, "real": real}
    kids: dict[str, TextureKidRecord | None] = dict.fromkeys(kinds)
    if network is not None:
        held_out = extract(images.held_out, compute, "texture of held_out", network)
        known = extract(images.training, compute, "texture of training", network)
        features = {
            "synthetic": extract(synthetic, compute, "texture of synthetic", network),
            "blurred": extract(blurred, compute, "texture of blurred", network),
            "real": known[rows],
        }
        kids |= {kind: _kid(some, held_out, known, seed) for kind, some in features.items()}
    power, weave = {}, {}
    for kind, some in kinds.items():
        power[f"spectrum_{kind}"], weave[kind] = gaps(some, images.held_out)
    name = network.name if network is not None else None
    return TextureRecord(
        network=name,
        blur=BLUR,
        **kids,
        **power,
        weave_synthetic=weave["synthetic"],
        weave_real=weave["real"],
    )


def _kid(some: np.ndarray, held_out: np.ndarray, known: np.ndarray, seed: int) -> TextureKidRecord:
    """In standard deviations of the training images: KID's kernel depends on the scale."""
    middle, spread = known.mean(0), np.maximum(known.std(0), LEAST_SPREAD)
    some, held_out = (some - middle) / spread, (held_out - middle) / spread
    return TextureKidRecord(kid=kid(some, held_out), kid_std=kid_spread(some, held_out, seed))


def words(record: TextureRecord) -> list[str]:
    """Lines for the terminal."""
    lines = []
    if record.synthetic and record.blurred and record.real:
        lines.append(
            f"texture, KID x1000 of early maps {1000 * record.synthetic.kid:,.0f} +- "
            f"{1000 * record.synthetic.kid_std:,.0f} (real {1000 * record.real.kid:,.0f}, blurred "
            f"by {record.blur:g} px {1000 * record.blurred.kid:,.0f})"
        )
    spectrum = (
        f"power spectrum: {record.spectrum_synthetic:.1f} dB from real (real "
        f"{record.spectrum_real:.1f}, blurred {record.spectrum_blurred:.1f})"
    )
    if record.weave_synthetic is None:
        return [*lines, spectrum]
    weave = f"{record.weave_synthetic:.1f} dB (real {record.weave_real:.1f}"
    return [*lines, f"{spectrum}; weave along the axes: {weave})"]
