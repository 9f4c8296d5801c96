"""A trained classifier: the best model of a finished run and all that its scores depend on."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from classifier.model.classifier import Classifier, ModelSpec
from classifier.model.metadata_inputs import MetadataInputs, load_metadata_inputs
from classifier.options import AugmentName, ScoredViews, TestViews
from classifier.records import VERSION, DecisionsRecord, ModelRecord
from classifier.run_folder import (
    DECISIONS,
    KIND,
    MODEL,
    PAIR,
    WEIGHTS,
    open_fold_runs,
    open_networks,
    open_run,
)
from classifier.targets import Target
from classifier.tta import probabilities
from data.images.decoding import Preprocessing
from data.store import Dataset
from dermsynth.device import Compute
from dermsynth.errors import UserError
from dermsynth.manifest import Sealed


@dataclass(frozen=True)
class Trained:
    """A model in eval mode, and what belongs to it."""

    model: Classifier
    target: Target
    about: ModelRecord
    metadata_inputs: MetadataInputs | None  # where the model looks at metadata
    tested: TestViews = 1  # the views that its run was tested in

    @property
    def augment(self) -> AugmentName:
        """What random views are drawn from."""
        return self.about.augment

    @property
    def look(self) -> Preprocessing:
        """How its training images were made; a centre crop where their dataset did not say."""
        size, made = self.model.spec.reads, self.about.look
        if made is None:
            return Preprocessing(size)
        return Preprocessing(size if made.size == "native" else made.size, made.fit, made.clean)

    @cached_property
    def _fast_model(self) -> Classifier:
        """The model for scores, made at the first ones, when it has come to its device."""
        return self.model.for_inference()

    def metadata(self, dataset: Dataset | None, rows: np.ndarray | None) -> np.ndarray | None:
        """float32 [n, columns] that a model is given beside images; None where it looks at none."""
        if self.metadata_inputs is None:
            return None
        return self.metadata_inputs.numbers(dataset, rows)  # type: ignore[arg-type]

    def scores(
        self,
        images: np.ndarray,
        compute: Compute,
        tta: ScoredViews = 1,
        dataset: Dataset | None = None,
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """Probability of target 1 (`target.meaning`), float64 [n].

        Parameters
        ----------
        images : uint8 [n, s, s, 3] RGB
        compute : where, and in which precision
        tta : views an image whose scores are averaged (classifier.tta); tested: as in its run
        dataset, rows : where the images come from; a model that looks at metadata needs it
        """
        metadata = self.metadata(dataset, rows)
        tta = self.tested if tta == "tested" else tta
        args = (self._fast_model, self.target, images, compute, tta, self.augment, metadata)
        return self.target.scores(probabilities(*args))


@dataclass(frozen=True)
class FoldModel:
    """What scores the images of one fold: a network, or two whose mean counts.

    `decisions` were chosen on that score of validation images.
    """

    networks: list[Trained]
    decisions: DecisionsRecord

    def scores(
        self,
        images: np.ndarray,
        compute: Compute,
        tta: ScoredViews,
        dataset: Dataset | None = None,
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """Probability of target 1, float64 [n]; arguments as of `Trained.scores`."""
        every = [each.scores(images, compute, tta, dataset, rows) for each in self.networks]
        return np.mean(every, axis=0)


def load_folds(run: Path) -> list[FoldModel]:
    """The model of a run, or those of all folds of a run with `--fold all`.

    Raises UserError where the run is not finished or a model damaged.
    """
    sealed = open_run(run)
    return [_load_fold(fold) for fold in open_fold_runs(sealed).values() or [sealed]]


def _load_fold(sealed: Sealed) -> FoldModel:
    networks = [load_trained(network) for network in open_networks(sealed)]
    if sealed.manifest.kind == PAIR:
        return FoldModel(networks, sealed.record(DECISIONS, DecisionsRecord))
    about = networks[0].about
    alone = DecisionsRecord(temperature=about.temperature, thresholds=about.thresholds)
    return FoldModel(networks, alone)


def load_trained(run: Path | Sealed) -> Trained:
    """The model of a run of one network. Raises UserError where it is not finished or damaged."""
    sealed = run if isinstance(run, Sealed) else open_run(run, (KIND,))
    about = sealed.record(MODEL, ModelRecord, VERSION)
    model = Classifier(ModelSpec(**about.spec.model_dump()))
    try:
        model.load_state_dict(sealed.tensors(WEIGHTS))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{sealed.path / WEIGHTS}: does not fit {about.spec.backbone} of this version of the "
            f"code ({reason}); {sealed.mend}"
        ) from None
    for name in ("mean", "std"):  # as they were in training, whatever a library says today
        values = torch.tensor(getattr(about, name)).view(1, 3, 1, 1)
        getattr(model.backbone, name).copy_(values)
    if about.leaky:
        print(f"warning: {sealed.path} was trained with a leak ({about.leaky})")
    inputs = load_metadata_inputs(sealed) if model.spec.columns else None
    of = about.target
    target = Target(of.name, of.classes, of.malignant, of.meaning)
    tested = sealed.manifest.options.get("tta", 1)
    return Trained(model.eval(), target, about, inputs, tested)  # type: ignore[arg-type]
