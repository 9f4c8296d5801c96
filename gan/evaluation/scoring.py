"""All that an evaluation computes, shows and writes: scores, copies, drift, pairs, pictures."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.pool_quality import compare_pixels, thumbnails, versions
from data.store import Dataset
from dermsynth.device import Compute, resolve
from dermsynth.files import write_text
from dermsynth.folders import whole_folder
from dermsynth.manifest import Sealed, digest, seal
from dermsynth.options import as_plain
from dermsynth.progress import waiting
from dermsynth.records import write_record
from dermsynth.seeds import generator as random_generator
from gan.evaluation import card, diagnosis_network, drift, membership, pairs, records, said
from gan.evaluation.audit import audit_pool
from gan.evaluation.features import FeatureNetwork, extract, imagenet_network
from gan.evaluation.fid import fid, inception, inception_features
from gan.evaluation.gate import gated
from gan.evaluation.metrics import (
    kid,
    kid_spread,
    memorisation,
    nearest_distances,
    precision_recall,
)
from gan.evaluation.records import EvaluationRecord
from gan.evaluation.subject import Images, Subject, open_source, open_subject
from gan.evaluation.texture import texture
from gan.exploration import ROWS, save_galleries
from gan.options import EvaluateOptions, NetworkName
from gan.sampling import draw_labels
from gan.weights import load_generator

SHOWN = 10  # closest synthetic images in the gallery
MEASURED = 1000  # images of a kind whose attributes are measured, at most
PAIRED = 200  # images of a kind that are compared with their nearest neighbours, at most


@dataclass(frozen=True)
class _Networks:
    """Who looks at the images."""

    chosen: NetworkName
    imagenet: FeatureNetwork  # always there: it saw neither side of the split
    diagnosis: FeatureNetwork | None
    facts: dict[str, Any]  # about the diagnosis network


@dataclass(frozen=True)
class _Seen:
    """Features by one network, float32 [n, d]."""

    network: str
    synthetic: np.ndarray
    training: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True)
class _Near:
    """Distances to real images, training and then held-out, over eight symmetries: [n, r]."""

    synthetic: np.ndarray
    synthetic_version: np.ndarray
    held_out: np.ndarray
    held_out_version: np.ndarray


def score(options: EvaluateOptions) -> dict[str, Any]:
    """As gan.evaluate.evaluate."""
    judge = inception(options.inception) if options.inception else None
    compute = resolve(options.compute.device, options.compute.precision, cpu_auto="bf16")
    source = open_source(options)
    out = records.place(options)
    with whole_folder(out, records.KIND, overwrite=True) as folder:
        subject = open_subject(options, source, compute)
        networks = _networks(options.network, subject.dataset, subject.fold, compute)
        by_imagenet, near = _look(subject.images, networks.imagenet, compute)
        seen = {"imagenet": by_imagenet}
        if networks.diagnosis:
            seen["diagnosis"] = _see(subject.images, networks.diagnosis, compute)
        chosen = seen.pop(networks.chosen)
        measured, drifts = _drift(subject.images, options.seed)
        values = {
            **_scores(chosen, options.seed),
            **_other_scores(next(iter(seen.values()), None), options.seed),
            "independent": _independent(networks.chosen, subject),
            **_copies(near, subject.images, options.seed),
            "drift": {name: dataclasses.asdict(drifted) for name, drifted in drifts.items()},
            "pairs": _pairs(subject.images, near["pixels"], options.seed),
            **(_fid(subject.images, judge, compute, options.seed) if judge else {}),
            "diagnosis_network": networks.facts or None,
            **_quality(subject, compute, options.seed),
            "membership": _membership(subject, near, compute),
            "texture": _texture(subject.images, networks.diagnosis, compute, options.seed),
            "label": subject.label,
            "n_training": len(subject.images.training),
            "dataset": str(subject.dataset.path),
            "folds_hash": subject.dataset.folds_hash,
            "fold": subject.fold,
            "seed": options.seed,
        }
        generator = subject.generator
        scored = EvaluationRecord.model_validate(_without_nan(values))
        record = gated(scored, generator.kimg if generator else None)
        closest = _closest(subject.images, near["features"])
        Image.fromarray(closest).save(folder / records.CLOSEST)
        galleries = {}
        if isinstance(source.opened, Sealed):
            galleries = _galleries(source.opened, options.seed, compute, folder)
        result = record.model_dump()
        with waiting("drawing the page"):
            page = card.render(subject, result, measured, closest, galleries)
        write_text(folder / records.PAGE, page)
        write_record(folder / records.HEADER, record)
        inputs = {"subject": source.as_input, "dataset": subject.dataset.as_input}
        parts = {"scores": digest(record.model_dump(exclude={"dataset"}))}
        seal(folder, records.KIND, parts, inputs, as_plain(options))
    print("\n".join(said.lines(record, out)))
    return result


# --- networks ------------------------------------------------------------------------------------


def _networks(
    wanted: NetworkName | None, dataset: Dataset, fold: int, compute: Compute
) -> _Networks:
    """The wanted network and, where that costs no training, the other one too."""
    chosen = wanted or ("diagnosis" if diagnosis_network.can_learn(dataset, fold) else "imagenet")
    trained, facts = None, {}
    if chosen == "diagnosis" or diagnosis_network.is_ready(dataset, fold):
        trained, facts = diagnosis_network.load_diagnosis_network(dataset, fold, compute)
    return _Networks(chosen, imagenet_network(), trained, facts)


def _independent(chosen: NetworkName, subject: Subject) -> bool | None:
    """Whether the discriminator saw nothing of what the evaluation network learned from."""
    sees = subject.discriminator_sees
    return None if sees is None else not (chosen == "imagenet" and "imagenet" in sees)


def _see(images: Images, network: FeatureNetwork, compute: Compute) -> _Seen:
    kinds = ("synthetic", "training", "held_out")
    features = [extract(getattr(images, kind), compute, kind, network) for kind in kinds]
    return _Seen(network.name, *features)


def _look(
    images: Images, network: FeatureNetwork, compute: Compute
) -> tuple[_Seen, dict[str, _Near]]:
    """Features, and nearest neighbours in features and in pixels, flipped and turned.

    By the network that saw neither training nor held-out images: to one that had learned the
    training images these would look special in any case.
    """
    turned = []
    for kind in ("synthetic", "held_out"):
        eight = versions(getattr(images, kind))
        flat = eight.reshape(-1, *eight.shape[2:])
        features = extract(flat, compute, f"{kind}, 8 symmetries", network)
        turned.append(features.reshape(8, -1, features.shape[1]))
    training = extract(images.training, compute, "training", network)
    small = [thumbnails(part) for part in (images.synthetic, images.held_out)]
    near = {
        "features": _near(*turned, training),
        "pixels": _near(*small, thumbnails(images.training)[0]),
    }
    return _Seen(network.name, turned[0][0], training, turned[1][0]), near


def _near(synthetic: np.ndarray, held_out: np.ndarray, training: np.ndarray) -> _Near:
    real = np.concatenate([training, held_out[0]])
    return _Near(*nearest_distances(synthetic, real), *nearest_distances(held_out, real))


# --- scores --------------------------------------------------------------------------------------


@waiting("computing KID, precision and recall")
def _scores(seen: _Seen, seed: int) -> dict[str, Any]:
    """KID, precision and recall of features, each beside what training images would get."""
    synthetic, floor = _matched(seen.synthetic, seen.training, seed)
    return {
        **_kids(synthetic, floor, seen.held_out, seed),
        **precision_recall(seen.held_out, synthetic),
        "floor": precision_recall(seen.held_out, floor),
        "n_real": len(seen.held_out),
        "n_synthetic": len(synthetic),
        "evaluation_network": seen.network,
    }


def _other_scores(seen: _Seen | None, seed: int) -> dict[str, Any]:
    """KID by the network that was not chosen; None where it is not there."""
    kids: dict[str, Any] = dict.fromkeys(("kid", "kid_std", "kid_floor", "kid_floor_std"))
    if seen is not None:
        kids = _kids(*_matched(seen.synthetic, seen.training, seed), seen.held_out, seed)
    scores = {name.replace("kid", "kid_other", 1): value for name, value in kids.items()}
    return {**scores, "evaluation_network_other": seen.network if seen else None}


def _kids(
    synthetic: np.ndarray, floor: np.ndarray, held_out: np.ndarray, seed: int
) -> dict[str, float]:
    return {
        "kid": kid(synthetic, held_out),
        "kid_std": kid_spread(synthetic, held_out, seed),
        "kid_floor": kid(floor, held_out),
        "kid_floor_std": kid_spread(floor, held_out, seed),
    }


def _matched(
    synthetic: np.ndarray, training: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """As many synthetic ones as training ones that stand for them, images or features [n, ...].

    At other sizes the floor would have another spread, and recall another meaning.
    """
    n = min(len(synthetic), len(training))
    rows = random_generator(seed, "gan/floor").permutation(len(training))[:n]
    return synthetic[:n], training[rows]


def _copies(near: dict[str, _Near], images: Images, seed: int) -> dict[str, Any]:
    n = len(images.training)
    by_space = {
        space: memorisation(distances.synthetic, distances.held_out, images.groups, n, seed)
        for space, distances in near.items()
    }
    return {
        "memorisation": by_space["features"].ratio,
        "memorisation_flagged": any(result.flagged for result in by_space.values()),
        "memorisation_in": {
            space: dataclasses.asdict(result) for space, result in by_space.items()
        },
    }


def _drift(
    images: Images, seed: int
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, drift.Drift]]:
    """What was measured of synthetic, training and held-out images, and how it compares."""
    rows = {
        kind: images.some(kind, MEASURED, seed) for kind in ("synthetic", "training", "held_out")
    }
    measured = {
        kind: drift.measure(getattr(images, kind)[chosen], kind) for kind, chosen in rows.items()
    }
    n = len(images.training)
    groups = images.groups[:n][rows["training"]], images.groups[n:][rows["held_out"]]
    return measured, drift.compare(*measured.values(), groups, seed)


@waiting("comparing nearest pairs")
def _pairs(images: Images, near: _Near, seed: int) -> dict[str, Any]:
    """Mean figures of nearest pairs, by kind of pair: what was compared with what."""
    n, means_by_kind = len(images.training), {}
    for kind, distances, version, real in (
        ("synthetic", near.synthetic, near.synthetic_version, "training"),
        ("synthetic", near.synthetic, near.synthetic_version, "held_out"),
        ("held_out", near.held_out, near.held_out_version, "training"),
    ):
        rows = images.some(kind, PAIRED, seed)
        columns = slice(n) if real == "training" else slice(n, None)
        closest = pairs.nearest(distances[rows, columns], version[rows, columns])
        shown = pairs.aligned(getattr(images, kind)[rows], closest)
        values = pairs.figures(shown, getattr(images, real)[closest.index])
        means = {name: float(value.mean()) for name, value in values.items()}
        means_by_kind[f"{kind}_to_{real}"] = {"n": len(rows), **means}
    return means_by_kind


def _quality(subject: Subject, compute: Compute, seed: int) -> dict[str, Any]:
    """What the quality gate goes by beside the scores."""
    images = subject.images
    pixels = compare_pixels(images.synthetic, images.training, seed)
    audit = audit_pool(
        images.synthetic,
        images.training,
        images.held_out,
        images.groups,
        compute,
        seed,
        subject.provenance,
    )
    return {"pixels": pixels, "audit": audit}


def _membership(subject: Subject, near: dict[str, _Near], compute: Compute) -> dict[str, Any]:
    """What attacks learn of who was trained on."""
    images, scores = subject.images, membership.NO_DISCRIMINATOR
    if subject.is_generator:
        real = np.concatenate([images.training, images.held_out])
        scores = membership.discriminator_scores(subject.path, real, compute)
    distances = {space: found.synthetic for space, found in near.items()}
    n = len(images.training)
    return membership.membership(distances, scores, images.groups, n).model_dump()


def _texture(
    images: Images, diagnosis: FeatureNetwork | None, compute: Compute, seed: int
) -> dict[str, Any]:
    early = diagnosis_network.early_maps(diagnosis) if diagnosis else None
    return texture(images, early, compute, seed).model_dump()


def _fid(images: Images, judge: torch.nn.Module, compute: Compute, seed: int) -> dict[str, float]:
    """FID against held-out images, and that of as many training images."""
    matched, floor = _matched(images.synthetic, images.training, seed)
    synthetic, training, held_out = (
        inception_features(judge, part, compute, what)
        for part, what in (
            (matched, "synthetic"),
            (floor, "training"),
            (images.held_out, "held_out"),
        )
    )
    return {"fid": fid(synthetic, held_out), "fid_floor": fid(training, held_out)}


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: None where something cannot be said."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- pictures ------------------------------------------------------------------------------------


def _closest(images: Images, near: _Near) -> np.ndarray:
    """Columns: the synthetic images nearest to training, relative to held-out. Three rows:

    the synthetic image turned to fit, its nearest training image, its nearest held-out image.
    """
    n = len(images.training)
    to_training, to_held_out = near.synthetic[:, :n], near.synthetic[:, n:]
    chosen = np.argsort(to_training.min(1) / (to_held_out.min(1) + 1e-9))[:SHOWN]
    neighbours = pairs.nearest(to_training[chosen], near.synthetic_version[chosen][:, :n])
    rows = (
        pairs.aligned(images.synthetic[chosen], neighbours),
        images.training[neighbours.index],
        images.held_out[to_held_out[chosen].argmin(1)],
    )
    return np.concatenate([np.concatenate(list(row), 1) for row in rows])


@waiting("drawing walks between latents")
def _galleries(run: Sealed, seed: int, compute: Compute, folder: Path) -> dict[str, Path]:
    """PNG files of walks between latents and of truncation."""
    network, record = load_generator(run)
    labels = draw_labels(record.classes, None, ROWS, seed)
    return save_galleries(network, labels, seed, compute, folder)
