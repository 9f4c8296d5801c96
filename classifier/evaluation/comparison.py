"""Images that are being scored, compared with a model's training images on the way."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from classifier.evaluation.likeness import (
    KINDS,
    UNKNOWN,
    Looks,
    Reference,
    facts_of,
    in_words,
    mean_facts,
    words,
)
from classifier.model.classifier import Classifier
from classifier.records import VERSION, LikenessFacts, LikenessRecord, ModelRecord
from classifier.run_folder import (
    METADATA,
    MODEL,
    REFERENCES,
    RUN,
    open_networks,
    open_run,
    read_facts,
)
from classifier.scores import guard
from dermsynth.files import write_json, write_text
from dermsynth.manifest import Sealed


class Comparison:
    """Images as they come, compared with those of the training of one network, or of several."""

    def __init__(self, references: list[Reference | None], models: list[Classifier]) -> None:
        self._references = [each for each in references if each is not None]
        self._known = len(self._references) == len(references)
        self._models = models if self._known else []
        self._distances: list[dict[str, np.ndarray]] = []
        self._pixels: list[Looks] = []

    @contextlib.contextmanager
    def batch(self, images: np.ndarray, sides: np.ndarray) -> Iterator[None]:
        """In its block every model gets these images, uint8 [n, s, s, 3], as they are first."""
        with contextlib.ExitStack() as stack:
            seen = [stack.enter_context(watched(model)) for model in self._models]
            yield
        if not self._known:
            return
        count, size = len(images), self._models[0].spec.size
        pixels = Looks.of(images, seen[0][0][:count], sides, size)
        folds = []
        for reference, passes in zip(self._references, seen, strict=True):
            looks = dataclasses.replace(pixels, features=passes[0][:count])
            folds.append(reference.distances(looks))
        mean = {kind: np.mean([fold[kind] for fold in folds], axis=0) for kind in folds[0]}
        self._distances.append(mean)
        self._pixels.append(dataclasses.replace(pixels, features=pixels.features[:, :0]))

    def result(self) -> tuple[pd.DataFrame, LikenessFacts, LikenessRecord] | None:
        """Of all images: distances, a row an image; figures; with what they were compared.

        None where a model has no reference.
        """
        if not self._known:
            return None
        kinds = ("distance", *KINDS)
        table = {kind: np.concatenate([part[kind] for part in self._distances]) for kind in kinds}
        trained_on = self._references[0].about
        facts = facts_of(table, Looks.joined(self._pixels), trained_on)
        return pd.DataFrame(table), facts, trained_on


def paths_beside(out: Path) -> tuple[Path, Path]:
    """OUT.likeness.csv and OUT.likeness.json of a file of scores."""
    return out.with_suffix(".likeness.csv"), out.with_suffix(".likeness.json")


def write_comparison(comparison: Comparison, names: list[str], out: Path) -> str:
    """Write the two files beside a file of scores, or take away another run's; a line to print."""
    distances, likeness = paths_beside(out)
    for path in (distances, likeness):
        path.unlink(missing_ok=True)
    if (result := comparison.result()) is None:
        return UNKNOWN
    by_image, facts, trained_on = result
    by_image.insert(0, "image_name", [guard(name) for name in names])
    write_text(distances, by_image.to_csv(index=False, float_format="%.4g"))
    told = {"words": words(facts, trained_on)}
    figures = {"images": facts, "training": trained_on}
    write_json(likeness, told | {k: v.model_dump(mode="json") for k, v in figures.items()})
    return f"{in_words(facts, trained_on)}: {distances}"


def load_references(run: Path) -> list[Reference | None]:
    """Of every network of a finished run, as `load_reference`."""
    return [load_reference(network) for network in open_networks(open_run(run))]


def load_reference(sealed: Sealed) -> Reference | None:
    """Of a run of one network; None of earlier versions, or where there were too few images.

    Raises UserError where it is damaged.
    """
    about = sealed.record(MODEL, ModelRecord, VERSION).likeness
    if about is None:
        return None
    return Reference(about, sealed.tensors(REFERENCES)["features"].numpy())


@contextlib.contextmanager
def watched(model: Classifier) -> Iterator[list[np.ndarray]]:
    """Collects pooled features of the last map, float32 [n, d], of every forward pass."""
    seen: list[np.ndarray] = []

    def keep(module: Any, inputs: Any, maps: torch.Tensor) -> None:
        seen.append(maps.detach().float().mean((2, 3)).cpu().numpy())

    handle = model.top.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


def run_likeness(sealed: Sealed) -> tuple[dict[str, LikenessFacts], LikenessRecord | None]:
    """What a finished run's training found of its test part and external sets, by part.

    Of a run of several networks means over them. {} and None of models without images and where
    it is unknown.
    """
    if sealed.manifest.kind == METADATA:
        return {}, None
    networks = open_networks(sealed)
    found = [read_facts(each).likeness if each.has(RUN) else {} for each in networks]
    records = [
        each.record(MODEL, ModelRecord, VERSION).likeness if each.has(MODEL) else None
        for each in networks
    ]
    if any(record is None for record in records):
        return {}, None
    return {name: mean_facts([facts[name] for facts in found]) for name in found[0]}, records[0]
