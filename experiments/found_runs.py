"""What lies in folders of runs and datasets, as far as the gallery shows it.

Read are manifests and small records, each checked against its hash; weights and images are not
looked at, so that a folder of many runs is read in seconds.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier.run_folder import FOLDS, METADATA, PAIR
from classifier.run_folder import KIND as CLASSIFIER
from data import pool, store
from dermsynth.errors import UserError
from dermsynth.manifest import NAME, NOT_SEALED, Sealed, read_manifest
from experiments import records, thumbnails
from experiments.wording import contradictions
from gan.evaluation import records as evaluations

GENERATOR = "generator"  # gan.weights.KIND, whose module loads torch
POOL, DATASET = pool.KIND, store.KIND
CLASSIFIERS = {
    CLASSIFIER: "one fold",
    PAIR: "one fold, two networks",
    FOLDS: "all folds",
    METADATA: "metadata alone",
}
MEND = "make it again"
TESTED = ("test", "oof", "val_mean", "val")  # parts of metrics.json: the first that is there counts
Reader = Callable[[Sealed], dict[str, Any]]
Fault = tuple[Path, str]  # a folder, and why it is not shown


@dataclass(frozen=True)
class Found:
    """A finished folder. `facts`: what its reader says of it, None where it does not know."""

    kind: str
    path: Path
    id: str
    inputs: dict[str, str]  # content ids by name
    within: Path | None  # the experiment that made it
    facts: dict[str, Any]


@dataclass
class Collection:
    """What was found, and what could not be read, with the reason."""

    found: list[Found] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def of(self, *kinds: str) -> list[Found]:
        """Those of some kinds, in the order of their paths."""
        return [one for one in self.found if one.kind in kinds]


def collect(folders: list[Path]) -> Collection:
    """Everything in these folders, and below them. Nothing in them stops it."""
    collection, seen = Collection(), set()
    for folder in folders:
        for path, around in _folders(folder, collection.faults):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                _read(path, around, collection)
    return collection


def _folders(root: Path, faults: list[Fault]) -> Iterator[tuple[Path, list[Path]]]:
    """Folders that have a manifest, with those around them; folders that nobody knows are faults.

    Hidden folders, checkpoints and links are passed over.
    """

    def unreadable(error: OSError) -> None:
        faults.append((Path(error.filename), f"cannot be read ({error.strerror})"))

    sealed: set[Path] = set()  # folders with a manifest
    foreign: set[Path] = set()
    for here, subfolders, names in os.walk(root, onerror=unreadable):
        path = Path(here)
        subfolders[:] = sorted(
            name for name in subfolders if not name.startswith(".") and name not in NOT_SEALED
        )
        above = [parent for parent in path.parents if parent in sealed]
        if NAME in names:
            sealed.add(path)
            yield path, above
            continue
        known = path == root or above or foreign & set(path.parents)
        if not known and any(not name.startswith(".") for name in names):
            foreign.add(path)
            faults.append((path, f"no {NAME}: not of DermSynth, or of an earlier version"))


def _read(path: Path, around: list[Path], collection: Collection) -> None:
    try:
        manifest = read_manifest(path, MEND)
        if not manifest.finished:
            reason = f"not finished ({manifest.kind}): --resume goes on with it"
            collection.faults.append((path, reason))
            return
        sealed, reader = Sealed(path, manifest, MEND), READERS.get(manifest.kind)
        facts = reader(sealed) if reader else {}
    except UserError as error:
        collection.faults.append((path, str(error)))
        return
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"a record is not as this version writes it ({type(error).__name__}: {error})"
        collection.faults.append((path, reason))
        return
    experiments = {one.path for one in collection.of(records.KIND)}
    within = next((parent for parent in around if parent in experiments), None)
    ids = {name: source.id for name, source in manifest.inputs.items()}
    collection.found.append(Found(manifest.kind, path, sealed.identity.id, ids, within, facts))


# --- readers, one a kind -------------------------------------------------------------------------


def _json(sealed: Sealed, name: str) -> Any:
    return json.loads(sealed.bytes(name))


def _experiment(sealed: Sealed) -> dict[str, Any]:
    comparisons = _json(sealed, records.COMPARISONS)
    record = _json(sealed, records.EXPERIMENT)
    return {
        "first": comparisons[0] if comparisons else {},
        "but": contradictions(comparisons),
        "forest": thumbnails.forest(comparisons),
        "dataset": Path(record["dataset"].get("path", "")).name,
        "started": record.get("started"),
        "warnings": len(record.get("warnings", [])),
        "failures": len(record.get("failures", [])),
        "page": records.REPORT if sealed.has(records.REPORT) else None,
    }


def _generator(sealed: Sealed) -> dict[str, Any]:
    record = _json(sealed, "generator.json")
    grids = sorted(name for name in sealed.manifest.files if name.startswith("samples/"))
    grids = [name for name in grids if name.endswith(".png") and "reals" not in name]
    return {
        "architecture": record["architecture"]["name"],
        "dataset": Path(record["dataset"]).name,
        "fold": record["fold"],
        "seed": record["seed"],
        "kimg": record["kimg"],
        "training": len(record["training_ids"]),
        "grid": thumbnails.grid(sealed.bytes(grids[-1])) if grids else None,
    }


def _pool(sealed: Sealed) -> dict[str, Any]:
    record = _json(sealed, pool.HEADER)
    made = record["provenance"]
    by = made.get("generator") or {}
    return {
        "count": record["count"],
        "size": record["size"],
        "origin": made["kind"],
        "dataset": Path(by["dataset"]).name if by else None,
        "fold": by.get("fold"),
        "seed": made.get("seed"),
    }


def _evaluation(sealed: Sealed) -> dict[str, Any]:
    """Scores of a generator or a pool."""
    record = _json(sealed, evaluations.HEADER)
    names = ("kid", "kid_std", "kid_floor", "recall", "coverage", "memorisation_flagged")
    faults = (record.get("quality") or {}).get("findings", [])
    return {name: record.get(name) for name in names} | {
        "faults": [fault["code"] for fault in faults if fault["severity"] == "fail"],
        "page": evaluations.PAGE,
    }


def _classifier(sealed: Sealed) -> dict[str, Any]:
    metrics = _json(sealed, "metrics.json")
    options, run = sealed.manifest.options, {}
    if sealed.has("run.json"):
        run = _json(sealed, "run.json")
    history = []
    if sealed.has("metrics.jsonl"):
        history = [json.loads(line) for line in sealed.bytes("metrics.jsonl").splitlines()]
    part = next((name for name in TESTED if name in metrics), None)
    return {
        "backbone": options.get("backbone"),
        "frozen": options.get("frozen"),
        "dataset": Path(str(options.get("data") or "")).name,
        "fold": options.get("fold"),
        "seed": options.get("seed"),
        "synthetic": options.get("synthetic"),
        "part": part,
        "auc": metrics[part].get("auc") if part else None,
        "auc_val": (metrics.get("val") or metrics.get("val_mean") or {}).get("auc"),
        "leaky": run.get("leaky"),
        "curve": thumbnails.curve(history, run.get("best_epoch")),
    }


def _dataset(sealed: Sealed) -> dict[str, Any]:
    record = _json(sealed, "dataset.json")
    counts = record["counts"]
    return {
        "source": record.get("source"),
        "images": counts.get("images"),
        "malignant": counts.get("malignant"),
        "one": (record.get("target") or {}).get("one", "target 1"),
        "groups": counts.get("groups"),
        "folds": sum(name.startswith("fold ") for name in counts.get("parts", {})),
        "size": (record.get("look") or {}).get("size"),
    }


READERS: dict[str, Reader] = {
    records.KIND: _experiment,
    GENERATOR: _generator,
    POOL: _pool,
    evaluations.KIND: _evaluation,
    **dict.fromkeys(CLASSIFIERS, _classifier),
    DATASET: _dataset,
}
