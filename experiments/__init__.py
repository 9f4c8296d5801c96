"""Experiments: pairs of arms on the same folds, seeds and test images, and what they show."""
