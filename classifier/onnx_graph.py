"""A trained classifier as an ONNX graph, with what its user must know, compared with torch."""

import contextlib
import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from classifier.augment import load_batch
from classifier.run_folder import read_facts, read_metrics
from classifier.trained import Trained
from data.store import KIND, load_dataset
from dermsynth.errors import UserError
from dermsynth.manifest import Sealed, read_manifest
from dermsynth.seeds import generator

INPUTS, OUTPUT, CLASSES = ("images", "columns"), "malignant", "classes"
BATCHES = (1, 5)  # sizes that are compared; the export itself sees another
FITS = {"crop": "centre crop to a square", "letterbox": "black bars to a square"}


class Probabilities(nn.Module):
    """What the graph computes."""

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.model, self.target = trained.model, trained.target
        self.malignant = [at for at, bad in enumerate(trained.target.malignant) if bad]

    def forward(
        self, images: torch.Tensor, columns: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Images float32 [n, 3, size, size] in 0..1 to float32 [n], and [n, classes]."""
        logits = self.model(images, columns)
        if self.target.name == "binary":
            return (torch.sigmoid(logits[:, 0]),)
        classes = torch.softmax(logits, 1)
        return classes[:, self.malignant].sum(1), classes


def to_onnx(trained: Trained) -> Any:
    """An onnx.ModelProto of Probabilities(trained), its number of images left open."""
    inputs = tuple(tensor[:3] for tensor in noise(trained))
    any_number = torch.export.Dim("n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch warns of its own code
        warnings.filterwarnings("ignore", "# The axis name")  # that both inputs share n
        program = torch.onnx.export(
            Probabilities(trained).eval(),
            inputs,
            dynamo=True,
            input_names=list(INPUTS[: len(inputs)]),
            output_names=[OUTPUT, CLASSES] if trained.target.name == "diagnosis" else [OUTPUT],
            dynamic_shapes={name: {0: any_number} for name in INPUTS[: len(inputs)]},
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def about(sealed: Sealed, trained: Trained) -> dict[str, str]:
    """What a user of the file must know, as ONNX keeps it: words by name."""
    facts, metrics = read_facts(sealed), read_metrics(sealed)
    spec, look = trained.model.spec, trained.look
    then = "" if spec.reads == spec.size else f"cubic to {spec.size} px, "
    words = {
        "class": OUTPUT,
        "output": f"probability that the lesion is {trained.target.meaning.one}, 0 to 1",
        "size": str(spec.size),
        "prepare": f"{FITS[look.fit]}, Lanczos to {spec.reads} px, {then}RGB / 255",
        "fit": look.fit,
        "clean": ",".join(look.clean) or "none",
        "backbone": spec.backbone,
        "best_epoch": str(facts.best_epoch),
        "licence_of_training_images": facts.licence or "unknown",
        "use": "research only; not a medical device",
    }
    if trained.target.name == "diagnosis":
        words["classes"] = ",".join(trained.target.classes)
    if trained.metadata_inputs:
        words["columns"] = json.dumps(trained.metadata_inputs.encoder.describe())
    for part in ("val", "test"):
        if (value := metrics.get(part, {}).get("auc")) is not None:
            words[f"{part}_auc"] = f"{value:.4f}"
    if (tta := sealed.manifest.options.get("tta", 1)) != 1:
        words["views"] = f"these figures are of means over --tta {tta}; this graph sees one view"
    if facts.leaky:
        words["leaky"] = f"its figures are no results: {facts.leaky}"
    return words


def noise(trained: Trained) -> tuple[torch.Tensor, ...]:
    """The model's inputs, for max(BATCHES) images that mean nothing."""
    spec, rng, n = trained.model.spec, generator(0, "export"), max(BATCHES)
    images = torch.from_numpy(rng.random((n, 3, spec.size, spec.size), np.float32))
    if not spec.columns:
        return (images,)
    return images, torch.from_numpy(rng.standard_normal((n, spec.columns), np.float32))


def samples(sealed: Sealed, trained: Trained) -> list[tuple[torch.Tensor, ...]]:
    """Inputs to compare on: noise and, where their dataset still lies there, training images."""
    batches, size = [noise(trained)], trained.model.spec.size
    recorded = sealed.manifest.inputs["dataset"]
    path = Path(recorded.path)
    with contextlib.suppress(UserError):  # gone, damaged or another one: not needed
        manifest = read_manifest(path, "")
        if (manifest.kind, manifest.id) == (KIND, recorded.id):
            dataset = load_dataset(path, trained.model.spec.reads)
            rows = np.arange(max(BATCHES)) % len(dataset.images)
            images = load_batch(np.asarray(dataset.images[rows]), size, None)
            numbers = trained.metadata(dataset, rows)
            batches.append((images,) if numbers is None else (images, torch.from_numpy(numbers)))
    return batches


@torch.inference_mode()
def difference(
    onnxruntime: ModuleType,
    content: bytes,
    trained: Trained,
    batches: list[tuple[torch.Tensor, ...]],
) -> float:
    """Largest difference of a probability between an ONNX file and torch, over BATCHES.

    Infinite where shapes or types differ, NaN where a probability is.
    """
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    torchs, worst = Probabilities(trained).eval(), 0.0
    for inputs in batches:
        for n in BATCHES:
            batch = [tensor[:n].contiguous() for tensor in inputs]
            named = zip(INPUTS, batch, strict=False)  # no columns where the model takes none
            given = session.run(None, {name: tensor.numpy() for name, tensor in named})
            for output, expected in zip(given, torchs(*batch), strict=True):
                if output.shape != tuple(expected.shape) or output.dtype != np.float32:
                    return float("inf")
                gap = np.abs(output - expected.numpy()).max()
                worst = float(np.maximum(worst, gap))  # keeps NaN
    return worst


def load_onnxruntime() -> ModuleType:
    """The library. Raises UserError, with the command, where it or a part of onnx is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx writes with it
    except ImportError as error:
        raise UserError(
            f"classifier.export needs onnx, onnxruntime and onnxscript ({error}): "
            "pip install -c constraints.txt -e '.[onnx]'"
        ) from None
    return onnxruntime
