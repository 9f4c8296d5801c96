"""What the curves of a cross-validated run show."""

import numpy as np
import pandas as pd
import pytest

from classifier.evaluation import plots


@pytest.fixture
def figures(monkeypatch):
    found = {}
    monkeypatch.setattr(
        plots, "_save", lambda figure, axes, title, path: found.update({path.name: axes})
    )
    yield found
    plots.plt.close("all")


def test_the_mean_curve_of_a_perfect_and_a_blind_fold(figures, tmp_path):
    target = np.tile([0, 0, 0, 1], 50)
    folds = [
        pd.DataFrame({"fold": 0, "target": target, "score": target * 0.9}),
        pd.DataFrame({"fold": 1, "target": target, "score": 0.5}),
        pd.DataFrame({"fold": 2, "target": 0, "score": np.linspace(0, 1, 200)}),
    ]
    of = [{"auc": 1.0, "average_precision": 1.0}, {"auc": 0.5, "average_precision": 0.25}]
    of.append({"auc": None, "average_precision": None})
    mean = {"auc": None, "auc_std": None, "average_precision": 0.625}
    mean["average_precision_std"] = 0.53
    pooled = pd.concat(folds).assign(part="oof")
    plots.draw_fold_plots(tmp_path / "plots", pooled, dict(enumerate(of)), mean, "two")
    roc, pr = ({line.get_label(): line for line in figures[name][0].lines} for name in figures)
    assert [name for name in roc if not name.startswith("_")] == [
        *("fold 0: AUC 1.000", "fold 1: AUC 0.500", "mean")  # one class: no curve, no mean
    ]
    at, height = roc["mean"].get_data()
    np.testing.assert_allclose(height[1:], (1 + at[1:]) / 2)
    at, height = pr["mean: AP 0.625 ± 0.530"].get_data()
    np.testing.assert_allclose(height[1:], (1 + 0.25) / 2)
    assert list(figures) == ["roc.png", "pr.png"]


def course(history, **known):
    return plots.Course(history, ([0, 0.5], [1e-3, 1e-4]), **known)


def rows(*figures):
    keys = ("epoch", "train_loss", "val_loss", "val_auc")
    return [dict(zip(keys, row, strict=True)) | {"train_auc": 0.7} for row in figures]


def test_the_circle_is_the_epoch_that_was_chosen_and_losses_have_their_names(figures, tmp_path):
    history = rows((1, 0.2, 0.60, 0.9), (2, 0.1, 0.50, 0.8), (3, 0.1, 0.55, 0.7))
    chosen = course(history, loss="focal", best=2, monitor="loss")
    plots._curves(tmp_path / "curves.png", chosen, "t")
    left, middle, _ = figures["curves.png"]
    lines = {line.get_label(): line for line in left.lines}
    assert list(lines) == [
        *("training: focal", "validation: cross-entropy", "epoch 2, chosen by loss")
    ]
    assert lines["epoch 2, chosen by loss"].get_data() == ([2], [0.5])
    assert len(middle.lines) == 2  # not the highest AUC
    plots._curves(tmp_path / "curves.png", course(history, loss="x", best=1, monitor="auc"), "t")
    marked = figures["curves.png"][1].lines[-1]
    assert marked.get_data() == ([1], [0.9])


def test_one_epoch_is_a_whole_mark(figures, tmp_path):
    one = course(rows((1, 0.2, 0.6, 1.0)), loss="cross-entropy", best=1, monitor="auc")
    plots._curves(tmp_path / "curves.png", one, "t")
    for axes in figures["curves.png"]:
        for line in axes.lines:
            assert line.get_marker() == "o"
            assert not line.get_clip_on()
            (low, high), values = axes.get_ylim(), line.get_ydata()
            assert low <= min(values)
            assert max(values) <= high
