"""For all tests: one thread, no run at W&B, and hypothesis does not time its examples.

One thread each: threads of several processes on the same cores wait for each other, and sums that
are compared bit for bit depend on how many there are.
"""

import os

from hypothesis import settings

from dermsynth.vision import library

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.setdefault("WANDB_MODE", "disabled")  # each command would begin a run of its own
library("torchvision")  # so that tests may import what stands on it by themselves
