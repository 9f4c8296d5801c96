"""The phantom's patients, lesions and labels, drawn so that the truth is known.

Four scores make a lesion look malignant: asymmetry, border, colour and diameter (the ABCD rule of
dermoscopy, Nachbar et al. 1994). Each is standard normal over all lesions; their weighted sum u is
standard normal too, and P(malignant | image) = sigmoid(intercept + slope * u). The slope is the
difficulty: it is chosen so that this probability, the best score that exists, has the AUC asked
for. Everything else in the picture is independent of the label. Age and sex depend on whether the
patient has a malignant lesion, site on the lesion's label, none of them on the picture.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, ndtr
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from data.phantom.config import PhantomConfig, PhantomPoolOptions, Quality
from data.phantom.render import BROWN, PATTERNS, Scene, draw_all
from data.phantom.tracked import track_phantom_pool
from data.pool import KIND, Pool, write_pool
from data.provenance import Provenance
from dermsynth.errors import UserError
from dermsynth.folders import check_replaceable
from dermsynth.locks import locked
from dermsynth.machine import check_memory
from dermsynth.options import check_bounds
from dermsynth.seeds import derive, generator

DEFAULT = PhantomConfig()
FACTORS = ("asymmetry", "border", "colour", "diameter")
# Asymmetry counts least: it is the hardest to read from pixels, and the bound should be in reach.
WEIGHTS = np.array([0.30, 0.50, 0.62, 0.53]) / np.linalg.norm([0.30, 0.50, 0.62, 0.53])
SHARED = 0.2  # share of a factor's variance that the lesions of one patient have in common
EXTRA_LESIONS = 1.2  # mean number of lesions a patient beyond the first
IMAGES_A_LESION = (0.74, 0.19, 0.07)  # probability of 1, 2, 3 images, as in HAM10000
BLOCK = 2048  # lesions drawn at a time when looking for malignant ones

# Measured on HAM10000: the skin's log RGB around the lesion, and what the metadata say by label.
SKIN_MEAN = np.array([5.44, 5.17, 5.23])
SKIN_COVARIANCE = np.array([[15, 9, 7], [9, 28, 29], [7, 29, 36]]) * 0.6e-3
AGE_MEAN, AGE_SD, MALE = (47.0, 61.0), 15.0, (0.52, 0.62)  # benign, malignant
SITES = {  # share among benign lesions, among malignant ones
    "abdomen": (0.11, 0.06),
    "back": (0.21, 0.29),
    "chest": (0.04, 0.06),
    "face": (0.08, 0.09),
    "foot": (0.03, 0.03),
    "hand": (0.02, 0.01),
    "lower extremity": (0.22, 0.18),
    "neck": (0.02, 0.03),
    "trunk": (0.16, 0.05),
    "upper extremity": (0.11, 0.20),
}


def sample_dataset(
    config: PhantomConfig, seed: int, progress: bool = True, workers: int | None = None
) -> tuple[np.ndarray, pd.DataFrame, dict[str, float]]:
    """A dataset drawn from the phantom, the same for every number of `workers` (None: all cores).

    Returns the images (uint8 [n, size, size, 3], RGB), the table of `sample_table` in the same
    order, and `best_auc` (of the true probability, exact; no classifier of images can beat it in
    expectation) with `best_auc_in_sample` (the same score on this very sample, NaN for one class).
    """
    table = sample_table(config, seed)
    images = draw_all(_scenes(table, seed), config.size, workers, progress)
    both = table.target.nunique() == 2
    in_sample = roc_auc_score(table.target, table.factor_probability) if both else float("nan")
    return images, table, {"best_auc": config.best_auc, "best_auc_in_sample": float(in_sample)}


def sample_malignant(
    count: int,
    seed: int,
    quality: Quality = "oracle",
    config: PhantomConfig = DEFAULT,
    progress: bool = False,
) -> np.ndarray:
    """What a generator of malignant images would make: uint8 [count, size, size, 3], RGB.

    `oracle` draws new patients from the distribution of the dataset's malignant images, exactly.
    `broken` is a generator that got the class wrong, collapsed and left artefacts: new views of a
    few of the most benign-looking lesions there are, blurred, with a faint checkerboard. All are
    independent of every dataset, also of one with the same seed.

    Parameters
    ----------
    count, seed : how many images; another seed, other images
    quality : `oracle` or `broken`, as above
    config : the dataset that they are to fit, and the side of the images
    progress : show a bar
    """
    table = sample_malignant_table(count, seed, quality, config)
    images = draw_all(_scenes(table, derive(seed, "pool")), config.size, progress=progress)
    return np.stack([_spoil(image) for image in images]) if quality == "broken" else images


# ----------------------------------------------------------------------------- factors and labels


@lru_cache
def logit(prevalence: float, best_auc: float) -> tuple[float, float]:
    """Intercept and slope of the logit of malignancy that give this prevalence and best AUC.

    u is standard normal, so both are one-dimensional integrals: exact to about 1e-6.
    """
    u = np.linspace(-8, 8, 8001)
    density = norm.pdf(u)
    density /= density.sum()

    def intercept(slope: float) -> float:
        def excess(b: float) -> float:
            return float((density * expit(b + slope * u)).sum()) - prevalence

        return brentq(excess, -1000, 1000, xtol=1e-10)

    def auc(slope: float) -> float:
        p = expit(intercept(slope) + slope * u)
        malignant, benign = density * p, density * (1 - p)
        below = np.cumsum(benign) - benign / 2
        return float((malignant * below).sum() / (malignant.sum() * benign.sum()))

    slope = brentq(lambda s: auc(s) - best_auc, 0, 100, xtol=1e-8)
    return intercept(slope), slope


def sample_table(config: PhantomConfig, seed: int) -> pd.DataFrame:
    """Factors, labels and metadata of a dataset, without drawing it: one row an image.

    Columns: image_id, target (0/1), diagnosis, patient_id, lesion_id, age (years), sex, site, and
    the truth under `factor_*`: the four standard normal scores of FACTORS, `factor_probability`
    (of malignancy), and what is independent of the label (pattern, density, skin, hairs, ...).
    """
    rng = generator(seed, "phantom-factors")
    lesions = 1 + rng.poisson(EXTRA_LESIONS, config.patients)
    patient = np.repeat(np.arange(config.patients), lesions)
    views = 1 + rng.choice(3, len(patient), p=IMAGES_A_LESION)
    return _sample(config, rng, patient, np.repeat(np.arange(len(patient)), views))


def sample_malignant_table(
    count: int,
    seed: int,
    quality: Quality = "oracle",
    config: PhantomConfig = DEFAULT,
) -> pd.DataFrame:
    """The factors behind `sample_malignant`, `count` rows in the columns of `sample_table`.

    By rejection: lesions of new patients are drawn until `count` are malignant.
    """
    if count < 1:
        raise UserError(f"phantom: count {count}: expected at least 1")
    kept: list[pd.DataFrame] = []
    numbers = np.arange(BLOCK)  # a lesion a patient, an image a lesion
    while sum(map(len, kept)) < count:
        rng = generator(seed, "phantom-pool", quality, len(kept))
        block = _sample(config, rng, numbers, numbers, first=BLOCK * len(kept))
        kept.append(block[block.target == 1] if quality == "oracle" else _wrong(block, count))
    table = pd.concat(kept).head(count).reset_index(drop=True)
    return table.assign(image_id=_ids("phantom", np.arange(count)))


def _wrong(block: pd.DataFrame, count: int) -> pd.DataFrame:
    """Few lesions, many times: those that look the least malignant of all."""
    few = block.nsmallest(max(4, min(count // 8, BLOCK // 16)), "factor_probability")
    return few.iloc[np.arange(count) % len(few)]


def _sample(
    config: PhantomConfig,
    rng: np.random.Generator,
    patient: np.ndarray,
    lesion: np.ndarray,
    first: int = 0,
) -> pd.DataFrame:
    """`patient` [lesions]: whose each lesion is; `lesion` [images]: what each image shows."""
    patients = patient[-1] + 1
    own = rng.standard_normal((len(patient), len(FACTORS)))
    common = rng.standard_normal((patients, len(FACTORS)))[patient]
    scores = np.sqrt(1 - SHARED) * own + np.sqrt(SHARED) * common
    intercept, slope = logit(config.prevalence, config.best_auc)
    probability = expit(intercept + slope * (scores @ WEIGHTS))
    target = (rng.random(len(patient)) < probability).astype(np.int64)

    pattern = rng.choice(PATTERNS, len(patient), p=(0.4, 0.25, 0.2, 0.15))
    benign = np.where(pattern == "cobblestone", "benign_keratosis", "nevus")
    columns: dict[str, Any] = {
        "target": target,
        "diagnosis": np.where(target == 1, "melanoma", benign),
        "patient_id": _ids("phantom_patient", patient + first),
        "lesion_id": _ids("phantom_lesion", np.arange(len(patient)) + first),
        **_metadata(rng, patient, target),
        **{f"factor_{name}": scores[:, k] for k, name in enumerate(FACTORS)},
        "factor_probability": probability,
        "factor_pattern": pattern,
        "factor_density": np.exp(0.1 + 0.4 * rng.standard_normal(len(patient))),
        "factor_warmth": rng.uniform(-1, 1, len(patient)),
        "factor_softness": rng.random(len(patient)),
        **_skin(rng, patient),
    }
    table = pd.DataFrame(columns).iloc[lesion].reset_index(drop=True)
    for name, values in _nuisances(rng, len(lesion)).items():
        table[f"factor_{name}"] = values
    table.insert(0, "image_id", _ids("phantom", np.arange(len(lesion)) + first))
    return table


def _metadata(
    rng: np.random.Generator, patient: np.ndarray, target: np.ndarray
) -> dict[str, np.ndarray]:
    """Age and sex of the patient (by whether any lesion is malignant) and site of the lesion."""
    patients = patient[-1] + 1
    ill = np.bincount(patient, target, patients) > 0
    age = np.where(ill, AGE_MEAN[1], AGE_MEAN[0]) + AGE_SD * rng.standard_normal(patients)
    age = np.clip(5 * np.rint(age / 5), 5, 85)
    male = rng.random(patients) < np.where(ill, MALE[1], MALE[0])
    shares = np.array(list(SITES.values()))
    edges = np.cumsum(shares / shares.sum(0), axis=0).T[target]  # [lesions, sites]
    site = (rng.random((len(target), 1)) > edges[:, :-1]).sum(1)
    return {
        "age": age[patient],
        "sex": np.where(male, "male", "female")[patient],
        "site": np.array(list(SITES))[site],
    }


def _skin(rng: np.random.Generator, patient: np.ndarray) -> dict[str, np.ndarray]:
    """The patient's skin tone, RGB 0..255: HAM10000's spread, and some with more melanin."""
    patients = patient[-1] + 1
    tone = rng.multivariate_normal(SKIN_MEAN, SKIN_COVARIANCE, patients)
    tone -= rng.gamma(0.3, 0.2, patients)[:, None] * BROWN
    tone = np.clip(np.exp(tone), 30, 250)
    tone[:, 2] = np.minimum(tone[:, 2], 0.95 * tone[:, 0])  # no blue skin
    tone = tone[patient]
    return {f"factor_skin_{name}": tone[:, k] for k, name in enumerate(("red", "green", "blue"))}


def _nuisances(rng: np.random.Generator, images: int) -> dict[str, np.ndarray]:
    """What lies on or around the skin in each image, whatever the lesion is."""
    frame = rng.random(images) < 0.05
    return {
        "hairs": rng.integers(1, 14, images) * (rng.random(images) < 0.3),
        "ruler": rng.random(images) < 0.1,
        "bubbles": rng.integers(1, 6, images) * (rng.random(images) < 0.12),
        "vignette": np.where(frame, 1.5, rng.random(images)),
    }


def _scenes(table: pd.DataFrame, seed: int) -> list[Scene]:
    """Rows of factors as the renderer wants them; every image and lesion has its own seed."""
    return [
        Scene(
            # Shifted down: most lesions look regular, and the high scores spread out.
            asymmetry=float(ndtr(1.2 * row.factor_asymmetry - 0.55)),
            border=float(ndtr(1.2 * row.factor_border - 0.55)),
            colour=float(ndtr(1.2 * row.factor_colour - 0.55)),
            diameter=float(min(0.47 * np.exp(0.28 * row.factor_diameter), 0.95)),
            pattern=row.factor_pattern,
            density=row.factor_density,
            warmth=row.factor_warmth,
            softness=row.factor_softness,
            skin=(row.factor_skin_red, row.factor_skin_green, row.factor_skin_blue),
            hairs=int(row.factor_hairs),
            ruler=bool(row.factor_ruler),
            bubbles=int(row.factor_bubbles),
            vignette=row.factor_vignette,
            lesion_seed=derive(seed, "phantom-lesion", row.lesion_id),
            image_seed=derive(seed, "phantom", row.image_id),
        )
        for row in table.itertuples()
    ]


def _ids(word: str, numbers: np.ndarray) -> list[str]:
    return [f"{word}_{number:06d}" for number in numbers]


def _spoil(image: np.ndarray) -> np.ndarray:
    """A generator's artefacts: too smooth, with a faint checkerboard of transposed convolutions."""
    size = len(image)
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.009 * size)
    period = max(size // 64, 1)
    step = (np.arange(size) // period) % 2
    board = np.where(step[:, None] == step[None], 1.5, -1.5).astype(np.float32)
    return np.clip(smooth + board[..., None] + 0.5, 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------- pool


def write_phantom_pool(options: PhantomPoolOptions) -> Pool:
    """Draw a pool and write it. Raises UserError for bad options or an --out that is taken."""
    check_bounds(options)
    config = PhantomConfig(
        prevalence=options.prevalence, best_auc=options.best_auc, size=options.size
    )
    out = options.output.out or Path("datasets") / options.quality
    check_replaceable(out, KIND, options.output.overwrite)
    need = options.count * options.size**2 * 3 * (2 if options.quality == "broken" else 1)
    check_memory(need, f"--count {options.count}: images", "lower --count or --size")
    provenance = Provenance(
        kind="phantom",
        quality=options.quality,
        seed=options.seed,
        statement="drawn by the phantom's sampler, from no image of any dataset",
    )
    with locked(out):  # from before the drawing on, so that nothing is drawn in vain
        images = sample_malignant(
            options.count, options.seed, options.quality, config, progress=True
        )
        pool = write_pool(out, images, provenance, options.output.overwrite)
    track_phantom_pool(options, pool)
    return pool
