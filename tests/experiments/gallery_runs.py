"""A folder of made-up runs of every kind, as far as the gallery reads them."""

import json
from pathlib import Path

import cv2
import numpy as np

from dermsynth.manifest import as_input, digest, seal

COMPARISON = {
    **{"arm": "synthetic", "reference": "real", "verdict": "helps", "delta_auc": 0.031},
    **{"ci_low": 0.012, "ci_high": 0.05, "ci_low_models": 0.02, "ci_high_models": 0.04},
}


def write(folder: Path, kind: str, files: dict[str, object], options=None, inputs=None):
    """A finished folder of a kind, of files that matter to the gallery."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = isinstance(content, bytes)
        path.write_bytes(content if raw else json.dumps(content).encode())
    return seal(folder, kind, {"x": digest(str(folder))}, inputs, options)


def write_experiment(folder: Path, **known) -> None:
    record = {"dataset": {"path": "datasets/ham"}, "started": "2026-01-02 03:04:05"}
    comparisons = [COMPARISON | known, COMPARISON | {"verdict": "inconclusive", "ci_low": None}]
    files = {"comparisons.json": comparisons, "experiment.json": record, "report.html": b"<html>"}
    write(folder, "experiment", files)


def write_classifier(folder: Path, auc: float, epochs: int = 2, **options) -> None:
    rows = [{"epoch": at + 1, "train_auc": 0.7, "val_auc": auc} for at in range(epochs)]
    files = {
        "metrics.json": {"val": {"auc": auc}, "test": {"auc": auc - 0.1}},
        "metrics.jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "run.json": {"best_epoch": 1, "leaky": None},
    }
    known = {"backbone": "b3", "frozen": 18, "data": "datasets/ham", "fold": 0, "seed": 0}
    write(folder, "classifier", files, known | {"synthetic": "0"} | options)


def write_generator(folder: Path):
    png = cv2.imencode(".png", np.full((40, 40, 3), 90, np.uint8))[1].tobytes()
    record = {"architecture": {"name": "lesiongan"}, "dataset": "datasets/ham", "fold": 0}
    record |= {"seed": 3, "kimg": 12.5, "training_ids": ["a", "b"]}
    return write(folder, "generator", {"generator.json": record, "samples/0001.png": png})


def write_evaluation(folder: Path, subject) -> None:
    scores = {"kid": 0.033, "kid_floor": 0.001, "recall": 0.5, "coverage": 0.25}
    finding = {"code": "blurred", "severity": "fail"}
    files = {"evaluation.json": scores | {"quality": {"findings": [finding]}}}
    files["evaluation.html"] = b"<html>"
    inputs = {"subject": as_input(subject, folder)}
    write(folder, "generator-evaluation", files, inputs=inputs)


def write_runs(tmp_path: Path) -> Path:
    """One of each kind in tmp_path/runs and tmp_path/datasets; returns the folder of runs."""
    runs = tmp_path / "runs"
    write_experiment(runs / "exp/one")
    write_classifier(runs / "exp/one/trials/fold0/real-seed0", 0.9)
    write_classifier(runs / "cls/mine", 0.8, seed=7, synthetic="0.3", fold=0)
    generator = write_generator(runs / "gan/g")
    write_evaluation(runs / "gan/g/evaluation", generator)
    pool = {"count": 500, "size": 128, "provenance": {"kind": "declared"}}
    write(tmp_path / "datasets/pool", "pool", {"pool.json": pool})
    counts = {"images": 1234, "malignant": 56, "groups": 700, "parts": {"test": {}, "fold 0": {}}}
    dataset = {"source": "ham10000", "counts": counts, "target": {"one": "melanoma"}}
    write(tmp_path / "datasets/ham", "dataset", {"dataset.json": dataset, "report.html": b"x"})
    return runs
