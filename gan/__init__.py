"""The generator: networks, one training loop, generation, evaluation."""

import dermsynth  # noqa: F401 - first, so that no other folder of these names is imported
