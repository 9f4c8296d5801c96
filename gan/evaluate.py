"""Score a generator or a pool against real images that it was not trained on.

Writes evaluation.json into the run or the pool: KID beside a real-against-real floor, precision,
recall, density, coverage, and whether synthetic images are copies of training images.
memorisation.png shows the ten closest ones. The held-out images are the malignant ones of the
fold's validation part; the test part is not touched.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from data.pool import load_pool
from data.store import Dataset
from gan.augment import symmetry
from gan.features import NETWORK, extract
from gan.generate import sample
from gan.metrics import kid, kid_spread, memorisation, nearest_distances, precision_recall
from gan.train import open_dataset, training_rows
from gan.weights import load_generator, read_description
from runtime import cli
from runtime.device import Compute, DeviceName, PrecisionName, resolve
from runtime.errors import UserError
from runtime.files import write_json
from runtime.seeds import generator as random_generator

LEAST_HELD_OUT = 8
THUMBNAIL = 16  # side at which pixels are compared
SHOWN = 10  # closest synthetic images in the gallery


@dataclass(frozen=True)
class EvaluateOptions:
    generator: Path | None = None  # run folder of gan.train; either this or --pool
    pool: Path | None = None  # pool folder of gan.generate or data.prepare
    data: Path | None = None  # prepared dataset; default the one that the generator was trained on
    fold: int | None = None  # whose validation part is held out; default the generator's
    count: int = 500  # synthetic images to score, at most
    seed: int = 0  # of the latents and the subsets
    device: DeviceName = "auto"  # auto takes CUDA where there is one
    precision: PrecisionName = "auto"  # auto is bf16 where the hardware has it


@dataclass(frozen=True)
class _Images:
    """What is compared; all uint8 [n, size, size, 3]."""

    synthetic: np.ndarray
    training: np.ndarray
    held_out: np.ndarray
    groups: np.ndarray  # of training and then of held-out images


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Write `evaluation.json` and `memorisation.png`; returns the former's content.

    KID is in plain units (papers often print it times 1000). Raises UserError for missing or
    damaged input, another image size, too few held-out images, and a dataset whose folds are not
    those that the generator was trained on.
    """
    target = _target(options)
    compute = resolve(options.device, options.precision, cpu_auto="bf16")
    dataset, fold, images = _gather(options, compute)
    ours = _features(images.synthetic, compute, "synthetic images, 8 symmetries")
    theirs = _features(images.held_out, compute, "held-out images, 8 symmetries")
    training = extract(images.training, compute, "training images")
    spaces = {
        "features": (ours, theirs, np.concatenate([training, theirs[0]])),
        "pixels": _thumbnails(images),
    }
    near = {}
    found = {}
    for space, (synthetic, held_out, real) in spaces.items():
        near[space] = nearest_distances(synthetic, real)
        among = nearest_distances(held_out, real)
        found[space] = memorisation(near[space], among, images.groups, len(training), options.seed)
    result = {
        **_scores(ours[0], training, theirs[0], options.seed),
        "memorisation": found["features"].ratio,
        "memorisation_flagged": any(part.flagged for part in found.values()),
        "memorisation_in": {space: dataclasses.asdict(part) for space, part in found.items()},
        "evaluation_network": NETWORK,
        "n_training": len(training),
        "dataset": str(dataset.path),
        "folds_hash": dataset.folds_hash,
        "fold": fold,
    }
    _gallery(target / "memorisation.png", images, near["features"])
    write_json(target / "evaluation.json", result)
    _report(result, target)
    return result


def _scores(
    synthetic: np.ndarray, training: np.ndarray, held_out: np.ndarray, seed: int
) -> dict[str, Any]:
    """KID, precision and recall of features, each beside what training images would get."""
    # Matched sizes, or the floor would have another spread (and recall another meaning).
    n = min(len(synthetic), len(training))
    synthetic = synthetic[:n]
    floor = training[random_generator(seed, "gan/floor").permutation(len(training))[:n]]
    return {
        "kid": kid(synthetic, held_out),
        "kid_std": kid_spread(synthetic, held_out, seed),
        "kid_floor": kid(floor, held_out),
        "kid_floor_std": kid_spread(floor, held_out, seed),
        **precision_recall(held_out, synthetic),
        "floor": precision_recall(held_out, floor),
        "n_real": len(held_out),
        "n_synthetic": n,
    }


def _target(options: EvaluateOptions) -> Path:
    if (options.generator is None) == (options.pool is None):
        raise UserError("give one of --generator RUN and --pool POOL")
    if options.count < 10:
        raise UserError(f"--count {options.count}: expected 10 or more")
    target = options.generator or options.pool
    assert target is not None
    return target


def _gather(options: EvaluateOptions, compute: Compute) -> tuple[Dataset, int, _Images]:
    """Open everything and check that it belongs together, before anything is computed."""
    if options.generator is not None:
        description = read_description(options.generator)
    else:
        assert options.pool is not None
        pool = load_pool(options.pool)
        description = pool.info.get("provenance", {}).get("generator", {})
    known = description.get("dataset")
    dataset = open_dataset(options.data or (Path(known) if known else None))
    fold = options.fold if options.fold is not None else description.get("fold", 0)
    rows, held_out = training_rows(dataset, fold), dataset.rows("val", fold)
    held_out = held_out[dataset.targets(held_out) == 1]
    if len(held_out) < LEAST_HELD_OUT:
        raise UserError(
            f"{dataset.path}: {len(held_out)} malignant images in the validation part of fold "
            f"{fold}; a comparison needs {LEAST_HELD_OUT} at the very least"
        )
    _check_unseen(description, dataset, held_out, fold)
    if options.generator is not None:
        network, _ = load_generator(options.generator)
        synthetic = sample(network, options.count, options.seed, compute)
    else:
        synthetic = np.array(pool.images[: options.count])
    if synthetic.shape[1] != dataset.size or len(synthetic) < 10:
        raise UserError(
            f"{len(synthetic)} synthetic images of {synthetic.shape[1]} px against real ones of "
            f"{dataset.size} px in {dataset.path}: expected 10 or more of the same size"
        )
    both = np.concatenate([rows, held_out])
    groups = dataset.table["group"].to_numpy()[both]
    return (
        dataset,
        fold,
        _Images(synthetic, dataset.images[rows], dataset.images[held_out], groups),
    )


def _check_unseen(
    description: dict[str, Any], dataset: Dataset, held_out: np.ndarray, fold: int
) -> None:
    seen = set(description.get("training_ids", []))
    met = [i for i in dataset.table["image_id"].to_numpy()[held_out] if i in seen]
    if met:
        raise UserError(
            f"the generator was trained on {len(met)} images that fold {fold} of {dataset.path} "
            f"holds out, {met[0]} for one; evaluate on its own dataset and fold"
        )


def _versions(images: np.ndarray) -> np.ndarray:
    """All eight symmetries of every image: [n, s, s, 3] -> [8 n, s, s, 3], identities first."""
    return np.concatenate([symmetry(images, number) for number in range(8)])


def _features(images: np.ndarray, compute: Compute, what: str) -> np.ndarray:
    """Features of all eight symmetries: [n, s, s, 3] -> float32 [8, n, 1280]."""
    return extract(_versions(images), compute, what).reshape(8, len(images), -1)


def _thumbnails(images: _Images) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Small flat pictures: synthetic and held-out [8, n, pixels], training + held-out [n, pixels].

    Small, so that a shifted or slightly changed copy is still near.
    """

    def shrink(pictures: np.ndarray) -> np.ndarray:
        side = (THUMBNAIL, THUMBNAIL)
        small = [cv2.resize(picture, side, interpolation=cv2.INTER_AREA) for picture in pictures]
        versions = _versions(np.stack(small).astype(np.float32))
        return versions.reshape(8, len(pictures), -1)

    synthetic, held_out = shrink(images.synthetic), shrink(images.held_out)
    return synthetic, held_out, np.concatenate([shrink(images.training)[0], held_out[0]])


def _gallery(path: Path, images: _Images, distances: np.ndarray) -> None:
    """Columns: the synthetic images nearest to training, relative to held-out. Three rows:

    the synthetic image, its nearest training image, its nearest held-out image.
    """
    n = len(images.training)
    to_training, to_held_out = distances[:, :n], distances[:, n:]
    chosen = np.argsort(to_training.min(1) / (to_held_out.min(1) + 1e-9))[:SHOWN]
    picture = np.concatenate(
        [
            np.concatenate(list(images.synthetic[chosen]), 1),
            np.concatenate(list(images.training[to_training[chosen].argmin(1)]), 1),
            np.concatenate(list(images.held_out[to_held_out[chosen].argmin(1)]), 1),
        ]
    )
    Image.fromarray(picture).save(path)


def _report(result: dict[str, Any], target: Path) -> None:
    verdict = "COPIES OF TRAINING IMAGES" if result["memorisation_flagged"] else "no copying seen"
    print(
        f"KID x1000 {1000 * result['kid']:.1f} +- {1000 * result['kid_std']:.1f}, real against "
        f"real {1000 * result['kid_floor']:.1f} +- {1000 * result['kid_floor_std']:.1f} "
        f"({result['evaluation_network']}, {result['n_synthetic']} synthetic, "
        f"{result['n_real']} held-out images)\n"
        f"precision {result['precision']:.2f}, recall {result['recall']:.2f}, density "
        f"{result['density']:.2f}, coverage {result['coverage']:.2f} "
        f"(real: {', '.join(f'{value:.2f}' for value in result['floor'].values())})\n"
        f"memorisation: distance ratio {result['memorisation']:.2f} (1 chance, 0 copies), "
        f"{verdict}\n{target / 'evaluation.json'}, {target / 'memorisation.png'}"
    )


if __name__ == "__main__":
    cli.run(EvaluateOptions, evaluate, "gan.evaluate", __doc__ or "")
