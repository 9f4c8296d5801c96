"""Cross-validation pooled: the folds' predictions as one frame, and figures over all of it.

Every image of the folds is scored once, by the model that did not see it (part "oof", out of fold).
The test part and external sets are scored by every fold's model; there the mean counts.
"""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from classifier.evaluation.metrics import Metrics, best_threshold, measure
from classifier.run_folder import COLUMNS, PLAIN_SCORE
from dermsynth.errors import UserError, counted, some

NOT_OF_RANKS = ("brier", "ece", "log_loss", "accuracy")
NOT_AVERAGED = ("n", "n_malignant", "threshold", "leaky")  # of a fold's metrics


def pool(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """One frame from the predictions.parquet of every fold (run_folder.COLUMNS and perhaps more).

    Part "oof": each fold's validation rows. "test" and "external/NAME": one row an image, with the
    mean over folds of `score`, of `plain_score` and of every `score_CLASS`. `rank` (float64, above
    0, to 1) is the score's percentile among the rows that the same model scored in the same part,
    and its mean over models: folds whose scores are calibrated differently can be pooled by it.
    Where one fold is leaky, all of it is.

    Raises UserError naming the images where a fold or an image comes twice, where a part has other
    images or targets in one fold than in another, and where scores are not finite.
    """
    frames, leaky = _without_leaks(frames)
    names = _check(frames)
    frames = [
        frame.assign(rank=frame.groupby("part")["score"].transform(percentile)) for frame in frames
    ]
    parts = [frame[frame["part"] == "val"].assign(part="oof") for frame in frames]
    _refuse_twice(pd.concat(parts), "the folds' validation parts overlap")
    for part in dict.fromkeys(name for frame in frames for name in frame["part"].unique()):
        if part != "val":
            of_part = [frame[frame["part"] == part] for frame in frames]
            parts.append(_mean(of_part, names, part, [*_score_columns(frames[0]), "rank"]))
    pooled = pd.concat(parts, ignore_index=True)
    return pooled.assign(leaky=True) if leaky else pooled


def average(frames: list[pd.DataFrame], names: list[str]) -> pd.DataFrame:
    """One frame from the predictions.parquet of networks of the same fold: means of their scores.

    Where one's are means over views and another's are not, the other's are of plain images.
    `names`: of the networks. Raises UserError as `pool`.
    """
    frames, leaky = _without_leaks(frames)
    if any(PLAIN_SCORE in frame for frame in frames):
        frames = [
            frame if PLAIN_SCORE in frame else frame.assign(**{PLAIN_SCORE: frame["score"]})
            for frame in frames
        ]
    _check_alike(frames, names)
    columns = _score_columns(frames[0])
    parts = [
        _mean([frame[frame["part"] == part] for frame in frames], names, part, columns)
        for part in frames[0]["part"].unique()
    ]
    mean = pd.concat(parts, ignore_index=True)
    return mean.assign(leaky=True) if leaky else mean


def pooled_metrics(
    pooled: pd.DataFrame, fold_metrics: list[dict[str, Metrics]]
) -> dict[str, Metrics]:
    """Figures of a pooled frame; `fold_metrics` are the folds' own metrics.json.

    "oof": all out-of-fold scores together; its Youden threshold serves every part. "oof_ranked":
    the same by `rank`; what takes scores for probabilities, or is not of ranks, is None.
    "val_mean": every figure's mean over the folds' validation parts, `FIGURE_std` (ddof 1) beside
    it, None where a fold has none, and `folds`. "test" and "external/NAME": the mean scores. What a
    part leaves undefined is None.
    """
    oof = pooled[pooled["part"] == "oof"]
    threshold = best_threshold(oof["target"].to_numpy(), oof["score"].to_numpy())
    ranked = oof.assign(score=oof["rank"]).drop(columns=PLAIN_SCORE, errors="ignore")
    by_rank = best_threshold(ranked["target"].to_numpy(), ranked["score"].to_numpy())
    validation = [metrics["val"] for metrics in fold_metrics]
    metrics = {
        "oof": measure(oof, threshold),
        "oof_ranked": measure(ranked, by_rank) | dict.fromkeys(NOT_OF_RANKS),
        "val_mean": _mean_metrics(validation),
    }
    others = [part for part in pooled["part"].unique() if part not in ("oof", "test")]
    for part in ("test", *others):
        metrics[part] = measure(pooled[pooled["part"] == part], threshold, oof)
    if "leaky" in pooled:
        reasons = {str(fold["leaky"]) for fold in validation if fold.get("leaky")}
        for part_metrics in metrics.values():
            part_metrics["leaky"] = "; ".join(sorted(reasons)) or "a fold is leaky"  # type: ignore[assignment]
    return metrics


def percentile(scores: np.ndarray) -> np.ndarray:
    """Rank over count, float64 [n] in (0, 1]; equal scores share the mean of their ranks."""
    return rankdata(scores) / len(scores)


def _check(frames: list[pd.DataFrame]) -> list[str]:
    """Each frame's name, `fold K`. Raises UserError where frames cannot be pooled."""
    if not frames:
        raise UserError("no folds to pool: expected the predictions of at least one")
    names = []
    for number, frame in enumerate(frames):
        if missing := [name for name in COLUMNS if name not in frame]:
            raise UserError(f"predictions {number}: no column {some(missing)}")
        folds = frame.loc[frame["part"] == "val", "fold"].unique().tolist()
        if len(folds) != 1:
            raise UserError(
                f"predictions {number}: expected the validation rows of one fold, found "
                f"{'those of folds ' + some(folds) if folds else 'none'}"
            )
        names.append(f"fold {folds[0]}")
        if names.count(names[-1]) > 1:
            raise UserError(f"{names[-1]} comes twice; pool every fold once")
    _check_alike(frames, names)
    return names


def _without_leaks(frames: list[pd.DataFrame]) -> tuple[list[pd.DataFrame], bool]:
    """Frames without their column `leaky`, and whether it says so of any."""
    leaky = any("leaky" in frame and frame["leaky"].any() for frame in frames)
    return [frame.drop(columns="leaky", errors="ignore") for frame in frames], leaky


def _check_alike(frames: list[pd.DataFrame], names: list[str]) -> None:
    """Raises UserError where frames cannot be put together."""
    for frame, name in zip(frames, names, strict=True):
        if other := sorted(set(frame.columns) ^ set(frames[0].columns)):
            raise UserError(f"{name} and {names[0]}: only one has the column {some(other)}")
        bad = ~np.isfinite(frame[_score_columns(frame)]).all(axis=1)
        if bad.any():
            raise UserError(f"{name}: {bad.sum()} scores are not finite: {some(_ids(frame[bad]))}")
        for part, rows in frame.groupby("part"):
            _refuse_twice(rows, f"{name}, part {part}")


def _mean(
    frames: list[pd.DataFrame], names: list[str], part: str, columns: list[str]
) -> pd.DataFrame:
    """One part's rows in the first frame's order, `columns` averaged over frames."""
    first = frames[0]
    total = np.zeros((len(first), len(columns)))
    for frame, name in zip(frames, names, strict=True):
        if odd := sorted(set(_ids(frame)) ^ set(_ids(first))):
            raise UserError(
                f"part {part}: {name} and {names[0]} scored other images: {some(odd)} "
                "in one of them only; train all on the same dataset and --external"
            )
        rows = frame.set_index("image_id").loc[first["image_id"]]
        if len(odd := first.loc[rows["target"].to_numpy() != first["target"].to_numpy()]):
            raise UserError(f"part {part}: {name} and {names[0]}: other targets: {some(_ids(odd))}")
        total += rows[columns].to_numpy(np.float64)
    mean = pd.DataFrame(total / len(frames), columns=columns, index=first.index)
    return first.assign(**mean)


def _mean_metrics(metrics: list[Metrics]) -> Metrics:
    means: Metrics = {}
    for key in (key for key in metrics[0] if key not in NOT_AVERAGED):
        values = [value for fold in metrics if (value := fold.get(key)) is not None]
        defined = len(values) == len(metrics)
        means[key] = float(np.mean(values)) if defined else None
        spread = defined and len(values) > 1  # of one number there is none
        means[f"{key}_std"] = float(np.std(values, ddof=1)) if spread else None
    return means | {"folds": len(metrics)}


def _refuse_twice(rows: pd.DataFrame, where: str) -> None:
    if twice := _ids(rows[rows["image_id"].duplicated()]):
        number = counted(len(twice), "image comes", "images come")
        raise UserError(f"{where}: {number} twice: {some(twice)}")


def _score_columns(frame: pd.DataFrame) -> list[str]:
    return [name for name in frame if name in ("score", PLAIN_SCORE) or name.startswith("score_")]


def _ids(rows: pd.DataFrame) -> list[str]:
    return rows["image_id"].tolist()
