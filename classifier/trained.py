"""A trained classifier: the best model of a finished run and all that its scores depend on."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from classifier.model.classifier import Classifier, ModelSpec
from classifier.model.metadata_inputs import MetadataInputs, load_metadata_inputs
from classifier.published_augment import AugmentName
from classifier.run_folder import MODEL, check_finished, fold_runs
from classifier.targets import Target
from classifier.tta import probabilities
from data.images.decoding import Preprocessing
from data.store import MARKER, Dataset, load_table
from dermsynth.cli import read_yaml
from dermsynth.device import Compute
from dermsynth.errors import UserError
from dermsynth.runs import CONFIG


@dataclass(frozen=True)
class Trained:
    """A model in eval mode, and what belongs to it."""

    model: Classifier
    target: Target
    augment: AugmentName
    metadata_inputs: MetadataInputs | None  # where the model looks at metadata
    look: Preprocessing  # how its training images were made

    def metadata(self, dataset: Dataset | None, rows: np.ndarray | None) -> np.ndarray | None:
        """float32 [n, columns] that a model is given beside images; None where it looks at none."""
        if self.metadata_inputs is None:
            return None
        return self.metadata_inputs.numbers(dataset, rows)  # type: ignore[arg-type]

    def scores(
        self,
        images: np.ndarray,
        compute: Compute,
        tta: int = 1,
        dataset: Dataset | None = None,
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """Probability of malignant, float64 [n].

        Parameters
        ----------
        images : uint8 [n, s, s, 3] RGB
        compute : where, and in which precision
        tta : views an image whose scores are averaged
        dataset, rows : where the images come from; a model that looks at metadata needs it
        """
        metadata = self.metadata(dataset, rows)
        args = (self.model, self.target, images, compute, tta, self.augment, metadata)
        return self.target.scores(probabilities(*args))


def load_folds(run: Path) -> list[Trained]:
    """The model of a run, or those of all folds of a run with `--fold all`.

    Raises UserError where the run is not finished or a model damaged.
    """
    check_finished(run)
    return [load_trained(fold) for fold in fold_runs(run).values() or [run]]


def load_trained(run: Path) -> Trained:
    """The model of one fold's run. Raises UserError where it is not finished or damaged."""
    check_finished(run)
    try:
        with safe_open(run / MODEL, "pt") as file:
            about = json.loads((file.metadata() or {})["classifier"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model = Classifier(ModelSpec(**about["spec"]))
        model.load_state_dict(state)
        target = about["target"]
        target = Target(target["name"], tuple(target["classes"]), tuple(target["malignant"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{run / MODEL}: missing or damaged ({reason}); train it again") from None
    if about["leaky"]:
        print(f"warning: {run} was trained with a leak ({about['leaky']})")
    inputs = load_metadata_inputs(run) if model.spec.columns else None
    return Trained(model.eval(), target, about["augment"], inputs, _look(run, model.spec.size))


def _look(run: Path, size: int) -> Preprocessing:
    """The training images' crop, cleaning and size; the usual ones where their dataset is gone."""
    data = Path(read_yaml(run / CONFIG)["data"])
    if not (data / MARKER).exists():
        print(f"warning: {data} is gone; images are cropped to their centre and not cleaned")
        return Preprocessing(size)
    made = load_table(data)[1].get("look")
    if made is None:
        return Preprocessing(size)
    stored = size if (data / "shards").exists() else made["size"]
    return Preprocessing(stored, made["fit"], tuple(made["clean"]))
