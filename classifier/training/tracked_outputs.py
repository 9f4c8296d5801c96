"""What a classifier's run is called where it is tracked, and what it sends beside its figures."""

import pandas as pd

from classifier.evaluation.operating_points import choose_thresholds
from classifier.run_folder import KIND
from classifier.training.setup import TrainingSetup
from dermsynth.manifest import identify
from dermsynth.tracked import About, config_of
from dermsynth.tracked import predictions as identity_of
from dermsynth.tracking import Tracker, harmless


def about_run(setup: TrainingSetup) -> About:
    """Its options with their types, its fold, seed and inputs."""
    options, name = setup.options, setup.dataset.path.name
    task = options.task
    labels = {"dataset": name, "backbone": options.model.backbone, "fold": task.fold}
    labels |= {"test_fold": task.test_fold, "seed": options.compute.seed}
    labels |= {"leaky": None if setup.leak is None else "yes"}
    group = f"{name}-{options.model.backbone}"
    return About("train", config_of(options), group, labels, "epoch", setup.inputs)


@harmless
def track_outputs(
    tracker: Tracker, setup: TrainingSetup, predictions: pd.DataFrame, parts: dict[str, str]
) -> None:
    """Curves of each part at validation's threshold, and the model and its predictions by id.

    `parts`: hashes of what the run is, as its manifest will have them.
    """
    meaning = setup.target.meaning
    rows = predictions[predictions["part"] == "val"]
    thresholds = choose_thresholds(rows["target"].to_numpy(), rows["score"].to_numpy())
    for part, rows in predictions.groupby("part", sort=False):
        if thresholds is None:
            break
        target, score = rows["target"].to_numpy(), rows["score"].to_numpy()
        words = meaning.zero, meaning.one
        tracker.curves(str(part), target, score, thresholds["youden"], words)
    lies = str(setup.out)
    tracker.made(identify(KIND, parts, setup.inputs), folder=lies)
    tracker.made(identity_of(parts["predictions"]), folder=lies, rows=len(predictions))
