"""Fine-tune a classifier on real and synthetic lesions, and test it on real ones.

Writes config.yaml, metrics.jsonl, metrics.json, predictions.parquet, model.safetensors and plots
to the run's folder. The checkpoint with the best validation figure is the one that is tested, once.
`--fold all` trains a model a fold, in FOLDER/fold0 and so on, and pools what they predict;
`--beside NAME=VALUE` a second network that differs in these, in FOLDER/second: scores are means.
`--config default` repeats a published recipe, of classifier/recipes or of a file.
Several GPUs: `torchrun --nproc-per-node N -m classifier.train` with the same options.
"""

from typing import TYPE_CHECKING, Any

from classifier.options import RECIPES, TrainOptions
from dermsynth import cli
from dermsynth.ranks import is_rank0

if TYPE_CHECKING:
    from classifier.training.trunk_cache import FeatureCache

FIRST = ("data", "fold", "backbone", "frozen", "size", "synthetic", "pool", "epochs", "out")


def train(options: TrainOptions, cache: "FeatureCache | None" = None) -> dict[str, dict[str, Any]]:
    """Train, test, write the run's folder; returns what metrics.json holds: figures by part.

    `cache` shares trunk features between the runs of one process. Raises UserError for bad input
    and KeyboardInterrupt, after a checkpoint, where the user stopped it.
    """
    from classifier.training import run  # imported here: --help does not wait for torch

    return run.train(options, cache)[1]


def main(options: TrainOptions) -> None:
    """Train, and name what comes next."""
    from classifier.training import run  # as above

    out, _ = run.train(options)
    if is_rank0():
        cli.say_next(f"python -m classifier.evaluate --run {out}")


if __name__ == "__main__":
    cli.run(TrainOptions, main, "classifier.train", __doc__, (*FIRST, "resume"), RECIPES)
