"""The generator card: one self-contained page of what was made, from what, how, and how good it is.

Pictures are embedded, nothing is loaded from elsewhere.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.images import skin_tone
from dermsynth.errors import counted
from dermsynth.page import templates
from gan.evaluation import card_pictures as pictures
from gan.evaluation.drift import ATTRIBUTES, SMALL
from gan.evaluation.subject import TARGETS, Subject

SAMPLES, COLUMNS = 64, 8  # pictures in a grid
FEW = 200  # training images, below which that is a failing of its own
LOW = 0.5  # of what real images reach: recall and coverage below are a failing
FAR = 3  # standard errors above the floor from which KID says that something is wrong
RARE = 0.02  # share of the training images below which a band of skin tone counts as missing
REACH = 2.0  # standard deviations either way that the drift's bars show
SCORES = {  # key: name, how to read it
    "precision": ("precision", "share of synthetic images that look like some real one"),
    "recall": ("recall", "share of real images that look like some synthetic one: variety"),
    "density": ("density", "as precision, but outliers among the real ones count less"),
    "coverage": ("coverage", "share of real images with a synthetic one nearby"),
}
PAIRS = {  # key: name, higher or lower is more alike
    "psnr": ("PSNR, dB", "higher"),
    "ssim": ("SSIM", "higher"),
    "ms_gmsd": ("MS-GMSD", "lower"),
    "mdsi": ("MDSI", "lower"),
    "haarpsi": ("HaarPSI", "higher"),
}
PAIR_KINDS = {
    "synthetic_to_training": "synthetic, its nearest training image",
    "synthetic_to_held_out": "synthetic, its nearest held-out image",
    "held_out_to_training": "held-out, its nearest training image",
}
COMPARED = {  # attribute: sentence where there is less of it, where there is more
    "lesion_size": ("Lesions are smaller", "Lesions are larger"),
    "lesion_lightness": ("Lesions are darker", "Lesions are lighter"),
    "lesion_redness": ("Lesions are less red", "Lesions are redder"),
    "lesion_yellowness": ("Lesions are bluer", "Lesions are yellower"),
    "lesion_variety": ("Lesions have fewer colours", "Lesions have more colours"),
    "skin_tone": ("Skin is darker", "Skin is lighter"),
    "hair": ("Hairs are lost", "Hairs are amplified"),
    "frame": ("Black frames are lost", "Black frames are amplified"),
    "vignette": ("Vignettes are weaker", "Vignettes are amplified"),
    "lattice": ("Less of a lattice than in real images", "A lattice lies over the images"),
    "noise": ("The finest detail is missing", "Too much of the finest detail: noise"),
    "sharpness": ("Images are blurred", "Images are too sharp or too rough"),
}
HOW = {  # keys of generator.json: name
    "targets": "learned",
    "kimg": "thousand images seen",
    "minutes": "minutes of training",
    "seed": "seed",
    "size": "side, px",
    "versions": "versions",
}


def render(
    subject: Subject,
    result: dict[str, Any],
    measured: dict[str, dict[str, np.ndarray]],
    closest: np.ndarray,
    galleries: dict[str, Path],
) -> str:
    """The page as HTML.

    Parameters
    ----------
    subject : what was evaluated
    result : the content of evaluation.json
    measured : what `drift.measure` gave of `synthetic` and `training` images
    closest : uint8 [h, w, 3], the picture of the images nearest to training
    galleries : PNG files by name
    """
    environment = templates(Path(__file__).parent)
    environment.globals |= {
        "signed": signed,
        "number": number,
        "figure": figure,
        "percent": percent,
        "bar": bar,
    }
    images, dataset, record = subject.images, subject.dataset, subject.generator
    architecture = record.architecture.name if record else None
    how = {words: getattr(record, key) for key, words in HOW.items()} if record else {}
    named = dict(zip(TARGETS, dataset.info.target.words, strict=True))
    if "learned" in how:
        how["learned"] = named.get(how["learned"], how["learned"])
    if subject.provenance.generator_id:
        how["content id"] = subject.provenance.generator_id
    return environment.get_template("card.html.j2").render(
        name=subject.path.resolve().name,
        subject=subject,
        kind="Generator card" if subject.is_generator else "Pool card",
        title=f"{architecture} on {dataset.path.resolve().name}" if architecture else None,
        dataset_name=dataset.path.resolve().name,
        result=result,
        failures=failures(result, measured["training"]),
        architecture=architecture,
        config=record.architecture.config if record else {},
        how=how,
        classes=[
            {"count": one.count, "name": named.get(one.name, one.name)}
            for one in (record.classes if record else [])
        ],
        target=dataset.info.target,
        provenance=subject.provenance.model_dump(exclude_defaults=True),
        sources=licences({"source": dataset.info.source, **dataset.info.facts}),
        synthetic=pictures.grid(images.synthetic[:SAMPLES], COLUMNS),
        real=pictures.grid(images.held_out[images.some("held_out", SAMPLES, 0)], COLUMNS),
        closest=pictures.jpeg(closest),
        histograms=[pictures.histograms(measured, narrow) for narrow in (False, True)],
        spectrum=[
            pictures.spectrum(result["audit"]["spectrum"], narrow) for narrow in (False, True)
        ],
        galleries={
            name: pictures.jpeg(np.asarray(Image.open(path).convert("RGB")))
            for name, path in galleries.items()
        },
        scores=SCORES,
        attributes=ATTRIBUTES,
        pairs=PAIRS,
        pair_kinds=PAIR_KINDS,
        skin={kind: bands(measured[kind]["skin_tone"]) for kind in ("training", "synthetic")},
        small=SMALL,
    )


def failures(result: dict[str, Any], training: dict[str, np.ndarray]) -> list[str]:
    """What is known to be wrong with the images, in sentences; what the quality gate found first.

    `training`: attributes of the training images.
    """
    sentences = [one["sentence"] for one in result["quality"]["findings"]]
    if result["n_training"] < FEW:
        sentences.append(f"Learned from no more than {counted(result['n_training'], 'image')}.")
    excess = result["kid"] - result["kid_floor"]
    if excess > FAR * result["kid_std"]:
        sentences.append(
            f"Can be told from real ones: KID lies {excess / result['kid_std']:.0f} standard "
            "errors above what real images score."
        )
    for key, words in (("recall", "real images that it can make"), ("coverage", "real images met")):
        value, floor = result[key], result["floor"][key]
        if value < LOW * floor:
            sentences.append(
                f"Little variety: {value:.2f} is the share of {words} ({key}), where real images "
                f"reach {floor:.2f}."
            )
    for name, drift in result["drift"].items():
        words = ATTRIBUTES[name].words
        if drift["verdict"] in ("more", "less"):
            sentence = f"{drift['verdict'].capitalize()} {words} than in the training images"
            if name in COMPARED:
                sentence = COMPARED[name][drift["verdict"] == "more"]
            if drift["share_training"] is not None:
                sentence += f" ({drift['share_synthetic']:.0%} of images have any; training images"
                sentence += f" {drift['share_training']:.0%})"
            sentences.append(f"{sentence}: {abs(drift['difference']):.1f} standard deviations.")
    narrow = [
        ATTRIBUTES[name].words
        for name, drift in result["drift"].items()
        if drift["narrower"] and not ATTRIBUTES[name].artefact
    ]
    if narrow:
        attributes = ", ".join(narrow)
        sentences.append(f"Too uniform: varies less than the training images in {attributes}.")
    shares = bands(training["skin_tone"])
    missing = [band for band in ("tan", "brown", "dark") if shares.get(band, 0) < RARE]
    if missing:
        sentences.append(
            f"Learned from hardly any {' or '.join(missing)} skin, as far as the pictures tell."
        )
    return sentences


def bands(angles: np.ndarray) -> dict[str, float]:
    """Share of images of each band of skin tone, light to dark; those of no band under `none`."""
    names = skin_tone.bands(angles)
    shares = {band: float((names == band).mean()) for band in skin_tone.BANDS}
    return {**shares, "none": 1 - sum(shares.values())}


def licences(info: dict[str, Any]) -> list[dict[str, Any]]:
    """Sources of a dataset with their licence and citation, from its dataset.json."""
    listed = info.get("sources")
    if not isinstance(listed, list) or not all(isinstance(source, dict) for source in listed):
        listed = [{"name": info.get("source"), **info}]
    keys = ("licence", "licence_url", "citation", "attribution")
    return [
        {"name": source.get("name") or "not named"}
        | {key: source[key] for key in keys if source.get(key)}
        for source in listed
    ]


def number(value: float | None, digits: int = 2) -> str:
    """`0.07`; an en dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}".replace("-", "−")


def figure(value: float | None) -> str:
    """Three figures: `0.003`, `1.04`, `41.2`; an en dash where there is none."""
    size = 0 if value is None else abs(value)
    return number(value, 1 if size >= 10 else 2 if size >= 1 else 3)


def signed(value: float | None) -> str:
    """`+0.31`, `−0.31`; an en dash where there is none."""
    return "–" if value is None else f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def percent(value: float | None) -> str:
    """`17%`; an en dash where there is none."""
    return "–" if value is None else f"{value:.0%}"


def bar(low: float | None, high: float | None) -> str:
    """CSS of an interval of standard deviations on a scale of REACH either way."""
    if low is None or high is None:
        return "display:none"
    left, right = (50 + 50 * min(max(end / REACH, -1), 1) for end in (low, high))
    left = min(left, 98.0)
    return f"left:{left:.1f}%;width:{max(right - left, 2):.1f}%"
