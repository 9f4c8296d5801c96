"""For all tests: no run at W&B, and hypothesis does not time its examples on a busy machine."""

import os

from hypothesis import settings

from dermsynth.vision import library

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
os.environ.setdefault("WANDB_MODE", "disabled")  # each command would begin a run of its own
library("torchvision")  # so that tests may import what stands on it by themselves
