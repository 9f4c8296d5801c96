"""What scores mean for a decision: a calibrated probability, and a call at a stored threshold."""

from typing import Literal

import numpy as np
import pandas as pd

from classifier.evaluation.calibration import scale
from classifier.trained import FoldModel


def call(
    scores: np.ndarray,
    models: list[FoldModel],
    at: Literal["youden", "sensitivity_95", "specificity_95"],
) -> pd.DataFrame | None:
    """Columns `probability` float64 in 0..1 and `call`, the target in words, a row an image.

    None where a model has no temperature or thresholds: its validation part had one class, or no
    temperature suited.

    Parameters
    ----------
    scores : float64 [models, n], of each model
    models : with the temperature and the thresholds that were chosen on their validation images
    at : which of the thresholds
    """
    known = [(each.decisions.temperature, each.decisions.thresholds) for each in models]
    if any(temperature is None or thresholds is None for temperature, thresholds in known):
        return None
    scaled = [scale(row, t) for row, (t, _) in zip(scores, known, strict=True) if t is not None]
    votes = [row >= getattr(over, at) for row, (_, over) in zip(scores, known, strict=True)]
    zero, one = models[0].networks[0].target.meaning.words
    called = np.mean(votes, axis=0) >= 0.5
    return pd.DataFrame(
        {"probability": np.mean(scaled, axis=0), "call": np.where(called, one, zero)}
    )
