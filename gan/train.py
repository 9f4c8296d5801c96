"""Train a GAN on the training part of a fold: on its malignant images, or on all by class.

Stops after --minutes of training or --kimg thousand images, writes the averaged generator, and
shows its progress in samples/*.png. A run that was killed goes on with --resume as if nothing had
happened. Several GPUs: `torchrun --nproc-per-node N -m gan.train` with the same options.
"""

import shlex
from pathlib import Path

from dermsynth import cli
from dermsynth.ranks import is_rank0
from gan.options import TrainOptions

FIRST = ("data", "fold", "arch", "minutes", "kimg", "batch", "seed", "device", "out", "resume")


def train(options: TrainOptions) -> Path:
    """Train and return the run folder, which then holds the generator and `generator.json`.

    Raises UserError for bad options or data and for training that diverges, KeyboardInterrupt
    after Ctrl-C or SIGTERM, when the checkpoint is written.
    """
    from gan import training_run  # imported here: --help does not wait for torch

    return training_run.train(options)


def main(options: TrainOptions) -> None:
    """Train, and name what comes next."""
    out = train(options)
    if is_rank0():
        cli.say_next(f"python -m gan.evaluate --generator {shlex.quote(str(out))}")


if __name__ == "__main__":
    cli.run(TrainOptions, main, "gan.train", __doc__, FIRST)
