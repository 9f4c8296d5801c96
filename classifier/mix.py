"""What a run trains on: real images, extra malignant ones, and the order they come in."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from data.mixing import extra_count
from data.pool import Pool, leak, load_pool
from data.store import Dataset
from runtime.errors import UserError
from runtime.files import read_json, sha256
from runtime.seeds import generator

Share = float | Literal["balanced"]
GENERATOR_RUNS = Path("runs/gan")


@dataclass(frozen=True)
class TrainingList:
    """The final training set: every real training image once, then the extra ones."""

    rows: np.ndarray  # int64 [n]: row of the dataset, or of the pool where `synthetic`
    synthetic: np.ndarray  # bool [n]
    targets: np.ndarray  # float32 [n], 0 or 1
    n_real: int

    def __len__(self) -> int:
        return len(self.rows)


def extras_needed(dataset: Dataset, fold: int, share: Share) -> int:
    """How many extra malignant images a share of the final training set means."""
    targets = dataset.targets(dataset.rows("train", fold))
    return extra_count(int((targets == 0).sum()), int((targets == 1).sum()), share)


def training_list(
    dataset: Dataset, fold: int, synthetic: int, oversampled: int, seed: int
) -> TrainingList:
    """Real images and either the pool's first `synthetic` or `oversampled` malignant real ones.

    Duplicates are spread evenly: no image comes twice more often than another.
    """
    real = dataset.rows("train", fold)
    if oversampled:
        malignant = real[dataset.targets(real) == 1]
        malignant = generator(seed, "oversample").permutation(malignant)
        extra = np.resize(malignant, oversampled)
    else:
        extra = np.arange(synthetic)
    targets = np.concatenate([dataset.targets(real), np.ones(len(extra))]).astype(np.float32)
    from_pool = np.zeros(len(targets), bool)
    from_pool[len(real) :] = synthetic > 0
    return TrainingList(np.concatenate([real, extra]), from_pool, targets, len(real))


class DataOrder:
    """An endless stream of permutations of n images, cut into batches; any step at any time.

    Arms with lists of the same length and the same seed see the same positions at each step.
    """

    def __init__(self, seed: int, n: int, batch: int) -> None:
        self.seed, self.n, self.batch = seed, n, batch
        self._permutation: dict[int, np.ndarray] = {}

    def positions(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the list and how often the list has been gone through, int64 [batch]."""
        number = np.arange(step * self.batch, (step + 1) * self.batch)
        rounds, within = number // self.n, number % self.n
        found = np.empty_like(number)
        for round_ in np.unique(rounds):
            chosen = rounds == round_
            found[chosen] = self._round(int(round_))[within[chosen]]
        return found, rounds

    def _round(self, number: int) -> np.ndarray:
        if number not in self._permutation:
            self._permutation = {k: v for k, v in self._permutation.items() if k == number - 1}
            self._permutation[number] = generator(self.seed, "order", number).permutation(self.n)
        return self._permutation[number]


def open_pool(
    dataset: Dataset, fold: int, path: Path, needed: int, allow_leakage: bool
) -> tuple[Pool, str | None]:
    """A pool that may be used on this fold, and why not where `allow_leakage` lets it pass.

    Raises UserError for a leak, for a pool that is too small or not of malignant images.
    """
    pool = load_pool(path)
    label = pool.info["provenance"].get("label") or "malignant"
    positive = dataset.info.get("options", {}).get("positive", "mel").split(",")
    if label not in ("malignant", *positive):
        raise UserError(
            f"--pool {path}: its images are {label}; synthetic images count as malignant here: "
            "make them with `python -m gan.generate --label malignant`"
        )
    reason = leak(pool, dataset, fold)
    if reason and not allow_leakage:
        raise UserError(f"{reason}. (--allow-leakage trains anyway and marks every output)")
    if len(pool.images) < needed:
        made = pool.info["provenance"]["kind"] == "generator"
        bigger = f"make them with `python -m gan.generate --generator RUN --count {needed}`"
        raise UserError(
            f"--pool {path}: holds {len(pool.images)} images, {needed} are needed; "
            f"{bigger if made else 'bring more of them'}, or lower --synthetic"
        )
    return pool, reason


def pool_of_generator(
    dataset: Dataset, fold: int, run: Path, count: int, seed: int, device: str, allow_leakage: bool
) -> Path:
    """The run's pool for `seed` of at least `count` images, made by `gan.generate` if need be.

    Raises UserError where the generator saw images of this fold's validation or test part.
    """
    weights, info = run / "generator.safetensors", run / "generator.json"
    if not weights.exists() or not info.exists():
        raise UserError(
            f"--generator {run}: no finished generator there (generator.safetensors and "
            f"generator.json); train one: `python -m gan.train --data {dataset.path} --fold {fold}`"
        )
    provenance = {"kind": "generator", "generator": read_json(info)}
    reason = leak(Pool(run, np.empty(0), {"provenance": provenance}), dataset, fold)
    if reason and not allow_leakage:
        raise UserError(f"{reason}. (--allow-leakage trains anyway and marks every output)")
    made = sha256(weights)
    for out in (run / "pools").glob(f"*-seed{seed}"):
        pool = load_pool(out)
        # a larger pool of the same seed begins with the same images
        if pool.info["provenance"].get("sha256") == made and len(pool.images) >= count:
            return out
    out = run / "pools" / f"{count}-seed{seed}"
    command = [sys.executable, "-m", "gan.generate", "--generator", str(run)]
    command += ["--count", str(count), "--seed", str(seed), "--out", str(out)]
    command += ["--device", device, "--overwrite"]
    print(f"making {count} synthetic images: {out}", flush=True)
    if code := subprocess.run(command, check=False).returncode:
        raise UserError(f"the pool could not be made (exit code {code}): {' '.join(command)}")
    return out


def newest_generator(dataset: Dataset, fold: int) -> Path:
    """The newest finished generator run under `runs/gan` trained on this fold of this dataset.

    Raises UserError naming the command that makes one.
    """
    found = []
    for info in GENERATOR_RUNS.glob("*/generator.json"):
        generator_ = read_json(info)
        fits = generator_.get("folds_hash") == dataset.folds_hash and generator_.get("fold") == fold
        if fits and (info.parent / "generator.safetensors").exists():
            found.append(info)
    if not found:
        raise UserError(
            f"--synthetic: no generator under {GENERATOR_RUNS} was trained on fold {fold} of "
            f"{dataset.path}; train one: `python -m gan.train --data {dataset.path} --fold {fold}`,"
            " or give --pool or --generator"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parent
