"""What W&B is sent beside figures and pictures: tables, curves, pages, artifacts.

An artifact holds a content id and no content, so that the one that made something and the one that
uses it name the same artifact, wherever the data lie; only a report's page is sent whole.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermsynth.manifest import Identity

if TYPE_CHECKING:
    from dermsynth.tracking import Line

MOST_POINTS = 20_000  # of a curve; of more, evenly chosen ones along the score
MOST_BYTES = 50 * 2**20  # of a page
SHORT = 12  # digits of a content id in an artifact's name


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """A W&B table; arrays become pictures. Columns beside pictures have one type each."""
    import wandb

    def cell(value: Any) -> Any:
        return picture(value) if isinstance(value, np.ndarray) else value

    mixed = not any(isinstance(value, np.ndarray) for row in rows for value in row)
    cells = [[cell(value) for value in row] for row in rows]
    return wandb.Table(columns=list(columns), data=cells, allow_mixed_types=mixed)


def picture(pixels: np.ndarray | Path) -> Any:
    """A W&B image of uint8 [h, w, 3], or of a file."""
    import wandb

    return wandb.Image(pixels if isinstance(pixels, np.ndarray) else str(pixels))


def curves(
    part: str, target: np.ndarray, score: np.ndarray, at: float, words: tuple[str, str]
) -> dict[str, Any]:
    """ROC, precision and recall, and confusion, as W&B's own charts by name."""
    import wandb

    truth, called = target.astype(int).tolist(), (score >= at).astype(int).tolist()
    confusion = wandb.plot.confusion_matrix(
        y_true=truth, preds=called, class_names=list(words), title=f"{part}: at score {at:.3g}"
    )
    if len(score) > MOST_POINTS:
        order = np.argsort(score, kind="stable")
        kept = order[np.linspace(0, len(order) - 1, MOST_POINTS).round().astype(int)]
        target, score = target[kept], score[kept]
        truth = target.astype(int).tolist()
    probabilities = np.stack([1 - score, score], 1).tolist()
    one: dict[str, Any] = {"labels": list(words), "classes_to_plot": [1]}
    return {
        f"{part}/roc": wandb.plot.roc_curve(truth, probabilities, title=f"{part}: ROC", **one),
        f"{part}/pr": wandb.plot.pr_curve(
            truth, probabilities, title=f"{part}: precision and recall", interp_size=101, **one
        ),
        f"{part}/confusion": confusion,
    }


def lines(name: str, x: str, points: "Mapping[str, Line]") -> Any:
    """A chart of lines by name."""
    import wandb

    xs, ys = (
        [list(line[0]) for line in points.values()],
        [list(line[1]) for line in points.values()],
    )
    return wandb.plot.line_series(xs=xs, ys=ys, keys=list(points), title=name, xname=x)


def page(path: Path) -> Any:
    """A page that lies on disk. Raises ValueError where it is too large to be sent."""
    import wandb

    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path}: over {MOST_BYTES // 2**20} MiB, not sent")
    return wandb.Html(path.read_text(encoding="utf-8"), inject=False)


def artifact(identity: Identity, facts: Mapping[str, Any], folder: Path, file: Path | None) -> Any:
    """An artifact of a content id; `folder`: where its small file is to lie, beside the run."""
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{identity.kind}-{identity.id[:SHORT]}"
    said = folder / f"{stem}.json"
    said.write_text(json.dumps({"kind": identity.kind, "id": identity.id}) + "\n")
    metadata = {"content_id": identity.id} | dict(facts)
    made = wandb.Artifact(stem, type=identity.kind, metadata=metadata)
    # not copied to W&B's own folders: an offline run is whole where it lies
    made.add_file(str(said), "identity.json", skip_cache=True, policy="immutable")
    if file is not None and file.stat().st_size <= MOST_BYTES:
        made.add_file(str(file), file.name, skip_cache=True, policy="immutable")
    return made
