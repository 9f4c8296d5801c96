"""Does the generator change what lesions, skin and cameras look like, or amplify their artefacts?

Every image is measured by attributes that need no network: the lesion's size and colours, skin
tone, hairs, black frame, vignette, sharpness, lattice, noise. Each attribute's distribution over
synthetic images is compared with that over training images, in standard deviations.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from data.images.cleaning import hair_mask
from data.images.skin_tone import frame_mask, ita
from dermsynth import progress
from dermsynth.seeds import generator

THINNEST = 32  # a frame's thinnest piece is the side over this
LEAST_LESION = 0.003  # of the image; what is smaller is a speck
CORNER, MIDDLE = 0.15, 0.2  # of the side: what vignette compares
PERIODS = (2, 4, 8)  # pixels, in which upsampling leaves its lattice
NEAR = 4  # frequencies either way with which a lattice's is compared
TEXTURE, FINEST = (4, 8), 8 / 3  # pixels: periods of texture, and below which no lens resolves
RESAMPLES = 1000
LEVEL = 0.95  # of the intervals
SMALL = 0.2  # standard deviations: a difference below is small (Cohen 1988)
LARGEST = 99.0  # standard deviations: what all of one kind have and none of the other
NARROWER = 0.2  # of the training images' standard deviation


@dataclass(frozen=True)
class Attribute:
    """What is measured and how it reads."""

    words: str
    unit: str
    artefact: bool = False  # of the camera, the body or the network, not of the lesion
    present: float | None = None  # from which value on an image counts as having it


ATTRIBUTES = {
    "lesion_size": Attribute("lesion size", "share of the picture"),
    "lesion_lightness": Attribute("lesion lightness", "L*, 0 black to 100 white"),
    "lesion_redness": Attribute("lesion redness", "a*, red above 0"),
    "lesion_yellowness": Attribute("lesion yellowness", "b*, yellow above 0, blue below"),
    "lesion_variety": Attribute("colours within the lesion", "spread in CIELAB"),
    "skin_tone": Attribute("skin tone", "ITA in degrees, dark to light"),
    "hair": Attribute("hairs", "share of the picture", True, 0.002),
    "frame": Attribute("black frame", "share of the picture", True, 0.002),
    "vignette": Attribute("vignette", "L* by which corners are darker", True),
    "lattice": Attribute("lattice", "log10 of power at periods of 2, 4, 8 px, to nearby", True),
    "noise": Attribute("finest detail", "log10 of power below 2.7 px, to 4 to 8 px", True),
    "sharpness": Attribute("sharpness", "log10 of the Laplacian's variance"),
}


def measure(images: np.ndarray, what: str) -> dict[str, np.ndarray]:
    """ATTRIBUTES of uint8 [n, s, s, 3] RGB: each float64 [n], NaN where there is none to measure.

    `what` names the images on the progress bar.
    """
    rows = []
    with progress.bar(len(images), f"attributes of {what}", "img") as bar:
        for image in images:
            rows.append(measure_one(np.ascontiguousarray(image)))
            bar.update()
    return {name: np.array([row[name] for row in rows], np.float64) for name in ATTRIBUTES}


def measure_one(image: np.ndarray) -> dict[str, float]:
    """ATTRIBUTES of one uint8 [h, w, 3] RGB image."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    light, grey = lab[..., 0], cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    frame = frame_mask(light, THINNEST)
    lesion = lesion_mask(light, frame)
    return {
        "lesion_size": float(lesion.sum() / max((~frame).sum(), 1)),
        **_colours(lab[lesion]),
        "skin_tone": ita(image),
        "hair": float((hair_mask(image) > 0).mean()),
        "frame": float(frame.mean()),
        "vignette": _vignette(light, frame),
        **_spectrum(grey),
        "sharpness": float(np.log10(cv2.Laplacian(grey, cv2.CV_32F).var() + 1e-3)),
    }


def lesion_mask(light: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """bool [h, w]: the lesion, by Otsu's threshold of L* within `frame` (Otsu 1979).

    Of the dark pieces those count that reach the middle of the picture and are no specks.
    """
    side = min(light.shape)
    soft = cv2.GaussianBlur(light, (0, 0), side / 64)
    levels = np.clip(soft * 2.55, 0, 255).astype(np.uint8)
    inside = levels[~frame]
    if not len(inside):
        return np.zeros(light.shape, bool)
    threshold, _ = cv2.threshold(inside, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    dark = ((levels <= threshold) & ~frame).astype(np.uint8)
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(dark)
    height, width = light.shape
    middle = pieces[height // 4 : -height // 4, width // 4 : -width // 4]
    kept = np.isin(np.arange(len(stats)), middle)
    kept &= stats[:, cv2.CC_STAT_AREA] >= LEAST_LESION * light.size
    kept[0] = False
    return kept[pieces]


def _colours(lab: np.ndarray) -> dict[str, float]:
    """Median colour of float [n, 3] CIELAB pixels and their spread around it."""
    names = ("lesion_lightness", "lesion_redness", "lesion_yellowness")
    if not len(lab):
        return dict.fromkeys((*names, "lesion_variety"), float("nan"))
    median = np.median(lab, 0)
    spread = np.sqrt(np.square(lab - median).sum(1).mean())
    return {**dict(zip(names, map(float, median), strict=True)), "lesion_variety": float(spread)}


def _vignette(light: np.ndarray, frame: np.ndarray) -> float:
    """How much darker the corners are than the middles of the sides, in L*; NaN if all is frame."""
    height, width = light.shape
    corner, middle = round(CORNER * height), round(MIDDLE * height)
    y = np.minimum(np.arange(height), np.arange(height)[::-1])[:, None]
    x = np.minimum(np.arange(width), np.arange(width)[::-1])[None]
    corners = (x + y < 1.5 * corner) & ~frame
    centred = (y > height / 2 - middle) | (x > width / 2 - middle)
    sides = (np.minimum(x, y) < corner) & centred & ~frame
    if not corners.any() or not sides.any():
        return float("nan")
    return float(np.median(light[sides]) - np.median(light[corners]))


def _spectrum(grey: np.ndarray) -> dict[str, float]:
    """Lattice and noise of float32 [h, w] grey levels.

    Upsampling leaves repeated copies of the spectrum: peaks at the periods of its steps, and too
    much power (or none) near the finest period (Odena et al. 2016, Durall et al. 2020).
    """
    height, width = grey.shape
    window = np.hanning(height)[:, None] * np.hanning(width)[None]
    power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2 + 1e-3
    peaks = []
    for period in PERIODS:
        down, right = height // period, width // period
        for row, column in {(down, 0), (0, right), (down, right), (down, -right % width)}:
            rows, columns = (
                np.arange(at - NEAR, at + NEAR + 1) % side
                for at, side in ((row, height), (column, width))
            )
            near = power[np.ix_(rows, columns)]
            peaks.append(np.log10(near[NEAR, NEAR] / np.median(near)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    finest = power[frequency >= 1 / FINEST].mean()
    texture = power[(frequency >= 1 / TEXTURE[1]) & (frequency <= 1 / TEXTURE[0])].mean()
    return {"lattice": float(np.mean(peaks)), "noise": float(np.log10(finest / texture))}


@dataclass(frozen=True)
class Drift:
    """One attribute of synthetic against training images; NaN where it cannot be said.

    Differences are of means, in standard deviations (pooled); intervals by a bootstrap of images,
    of whole groups where they are real.
    """

    mean_synthetic: float
    mean_training: float
    mean_held_out: float
    difference: float  # synthetic - training
    low: float
    high: float
    difference_real: float  # held-out - training: what chance does
    low_real: float
    high_real: float
    spread: float  # standard deviation of synthetic over that of training images
    spread_low: float
    spread_high: float
    share_synthetic: float | None  # of images that have it at all, where that can be said
    share_training: float | None
    verdict: str  # more | less | same | unclear
    narrower: bool  # surely varies less than in training images, by NARROWER or more


def compare(
    synthetic: dict[str, np.ndarray],
    training: dict[str, np.ndarray],
    held_out: dict[str, np.ndarray],
    groups: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> dict[str, Drift]:
    """What drifts between three sets of images.

    `more` and `less`: the whole interval lies beyond SMALL standard deviations; `same`: the whole
    of it lies within; else `unclear`.

    Parameters
    ----------
    synthetic, training, held_out : `measure` of each, float64 [n] by attribute
    groups : of training and of held-out images, [n] each; those of one are drawn together
    seed : of the resamples
    """
    everyone = np.arange(len(next(iter(synthetic.values()))))
    weights = {
        name: _resamples(members, seed, name)
        for name, members in (
            ("synthetic", everyone),
            ("training", groups[0]),
            ("held-out", groups[1]),
        )
    }
    return {
        name: _compare(
            attribute,
            _Sample(synthetic[name], weights["synthetic"]),
            _Sample(training[name], weights["training"]),
            _Sample(held_out[name], weights["held-out"]),
        )
        for name, attribute in ATTRIBUTES.items()
    }


class _Sample:
    """Mean and standard deviation of values, [0] as they are and [1:] of every resample."""

    def __init__(self, values: np.ndarray, weights: np.ndarray) -> None:
        known = np.isfinite(values)
        self.values, weights = values[known], weights[:, known]
        with np.errstate(invalid="ignore", divide="ignore"):
            weights = weights / weights.sum(1, keepdims=True)
        nothing = np.full(len(weights), np.nan)
        self.mean = weights @ self.values if known.any() else nothing
        centred = self.values - self.values.mean() if len(self.values) else self.values
        self.variance = np.maximum(weights @ centred**2 - (weights @ centred) ** 2, 0)

    def share(self, least: float | None) -> float | None:
        """Of the images that reach `least`; None where that cannot be said."""
        if least is None or not len(self.values):
            return None
        return float((self.values >= least).mean())


def _resamples(groups: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """How often each image comes: float32 [1 + RESAMPLES, n], row 0 ones; groups stay together."""
    rng = generator(seed, "gan/drift", purpose)
    names, members = np.unique(groups, return_inverse=True)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    return np.concatenate([np.ones((1, len(groups))), drawn[:, members]]).astype(np.float32)


def _compare(attribute: Attribute, ours: _Sample, training: _Sample, real: _Sample) -> Drift:
    difference, low, high = _interval(_difference(ours, training))
    difference_real, low_real, high_real = _interval(_difference(real, training))
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = _interval(np.sqrt(ours.variance / training.variance))
    return Drift(
        *(float(sample.mean[0]) for sample in (ours, training, real)),
        *(difference, low, high),
        *(difference_real, low_real, high_real),
        *spread,
        *(sample.share(attribute.present) for sample in (ours, training)),
        verdict=_verdict(low, high),
        narrower=bool(spread[2] < 1 - NARROWER),
    )


def _difference(sample: _Sample, other: _Sample) -> np.ndarray:
    """Standardised difference of means, at most LARGEST; 0 where neither varies nor differs."""
    shift = sample.mean - other.mean
    scale = np.sqrt((sample.variance + other.variance) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(shift == 0, 0.0, shift / scale).clip(-LARGEST, LARGEST)


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """The value itself and its bounds; NaN where resamples have none."""
    if not np.isfinite(values).all():
        return float("nan"), float("nan"), float("nan")
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(values[0]), float(low), float(high)


def _verdict(low: float, high: float) -> str:
    if low > SMALL:
        return "more"
    if high < -SMALL:
        return "less"
    return "same" if low >= -SMALL and high <= SMALL else "unclear"
