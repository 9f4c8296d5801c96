"""For all tests: hypothesis does not time its examples, a busy machine is no failure."""

from hypothesis import settings

from dermsynth.vision import library

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
library("torchvision")  # so that tests may import what stands on it by themselves
