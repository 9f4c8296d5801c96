"""The classifier: backbones, one training loop, metrics, plots."""

import dermsynth  # noqa: F401 - first, so that no other folder of these names is imported
