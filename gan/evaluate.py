"""Score a generator or a pool against real images that it was not trained on.

Writes evaluation.json and one page, evaluation.html, into the folder evaluation/ of the run or the
pool, in place of an earlier one: KID beside a real-against-real floor, precision, recall, density,
coverage; whether synthetic images are copies of training images; what drifts (colour, size, hair,
frames, sharpness); how alike nearest pairs are. The held-out images are the malignant ones of the
fold's validation part (with --label benign, and of a benign pool, the benign ones); the test part
is not touched. The first evaluation of a dataset and fold trains its evaluation network, a minute
or two.
"""

import shlex
from typing import Any

from dermsynth import cli
from dermsynth.errors import UserError
from dermsynth.options import check_bounds
from gan.options import EvaluateOptions


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Write `evaluation.json`, `evaluation.html`, `memorisation.png`; returns the first's content.

    KID is in plain units (papers often print it times 1000). Raises UserError for missing or
    damaged input, another image size, too few held-out images, and another dataset than the one
    that the generator was trained on.
    """
    check_bounds(options)
    if (options.generator is None) == (options.pool is None):
        raise UserError("give one of --generator RUN and --pool POOL")
    from gan.evaluation.scoring import score  # imported here: --help does not wait for torch
    from gan.tracked import track_evaluation

    result = score(options)
    track_evaluation(options, result)
    return result


def main(options: EvaluateOptions) -> None:
    """Score, and name what comes next."""
    label = evaluate(options)["label"]
    if options.generator is not None:
        run = shlex.quote(str(options.generator))
        which = " --label benign" if label == "benign" else ""
        cli.say_next(f"python -m gan.generate --generator {run} --count 1000{which}")
    elif label == "malignant":  # a benign pool alone is nothing that a classifier takes
        cli.say_next(
            f"python -m classifier.train --synthetic 0.3 --pool {shlex.quote(str(options.pool))}"
        )


if __name__ == "__main__":
    cli.run(EvaluateOptions, main, "gan.evaluate", __doc__)
