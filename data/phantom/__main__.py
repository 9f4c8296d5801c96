"""`python -m data.phantom`: draw a pool of phantom lesions."""

from data.phantom.draw import Options, __doc__, write
from dermsynth.cli import run

run(Options, write, "data.phantom", __doc__ or "")
