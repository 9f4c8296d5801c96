"""Experiments: pairs of arms on the same folds, seeds and test images, and what they show."""

import dermsynth  # noqa: F401 - first, so that no other folder of these names is imported
