"""What the curves of a cross-validated run show."""

import numpy as np
import pandas as pd
import pytest

from classifier.evaluation import plots


@pytest.fixture
def figures(monkeypatch):
    found = {}
    monkeypatch.setattr(
        plots, "_save", lambda figure, axes, title, path: found.update({path.name: axes[0]})
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
    roc, pr = ({line.get_label(): line for line in figures[name].lines} for name in figures)
    assert [name for name in roc if not name.startswith("_")] == [
        *("fold 0: AUC 1.000", "fold 1: AUC 0.500", "mean")  # one class: no curve, no mean
    ]
    at, height = roc["mean"].get_data()
    np.testing.assert_allclose(height[1:], (1 + at[1:]) / 2)
    at, height = pr["mean: AP 0.625 ± 0.530"].get_data()
    np.testing.assert_allclose(height[1:], (1 + 0.25) / 2)
    assert list(figures) == ["roc.png", "pr.png"]
