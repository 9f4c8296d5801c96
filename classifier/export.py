"""A trained classifier as one ONNX file, for programs without torch.

Input `images` float32 [n, 3, size, size], RGB, 0 to 1, any n; of a run with `--head metadata` also
`columns` float32 [n, columns], age, sex and site as numbers. Output `malignant` float32 [n], the
probability; of a run with `--target diagnosis` also `classes` float32 [n, classes]. The file's
metadata say how images are to be cropped, how columns are made and what the run was worth.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from classifier.augment import load_batch
from classifier.run_folder import METRICS, MODEL, RUN
from classifier.trained import Trained, load_trained
from data.store import MARKER, load_dataset, load_table
from dermsynth import cli
from dermsynth.cli import read_yaml
from dermsynth.errors import UserError
from dermsynth.files import read_json, write_bytes
from dermsynth.runs import CONFIG
from dermsynth.seeds import generator

INPUTS, OUTPUT, CLASSES = ("images", "columns"), "malignant", "classes"
TOLERANCE = 1e-4  # of a probability, between onnxruntime and torch
BATCHES = (1, 5)  # sizes that are compared; the export itself sees another
FITS = {"crop": "centre crop to a square", "letterbox": "black bars to a square"}


@dataclass(frozen=True)
class ExportOptions:
    """Options of `python -m classifier.export`."""

    run: Path  # run folder of classifier.train
    out: Path  # .onnx file to write
    overwrite: bool = False  # replace the file in --out


def export(options: ExportOptions) -> float:
    """Write the file; returns the largest difference from torch that was found, a probability.

    Raises UserError where onnx is not installed, the run is not finished or holds no network, the
    file exists already, or onnxruntime's answers differ from torch's by TOLERANCE: then no file.
    """
    onnxruntime = _onnxruntime()
    if options.out.suffix != ".onnx":
        raise UserError(f"--out {options.out}: expected a name that ends in .onnx")
    if options.out.exists() and not options.overwrite:
        raise UserError(f"--out {options.out}: exists already; give another or --overwrite")
    if (options.run / METRICS).exists() and not (options.run / MODEL).exists():
        raise UserError(
            f"--run {options.run}: holds no {MODEL}; give a run of one fold by classifier.train"
        )
    trained = load_trained(options.run)
    spec = trained.model.spec
    graph = to_onnx(trained)
    for key, value in about(options.run, trained).items():
        graph.metadata_props.add(key=key, value=value)
    content = graph.SerializeToString()
    found = difference(onnxruntime, content, trained, samples(options.run, trained))
    if not found < TOLERANCE:  # so that NaN is refused, too
        raise UserError(
            f"--run {options.run}: onnxruntime and torch differ by {found:.2g}, allowed are "
            f"{TOLERANCE:g}; nothing was written. Other versions of onnx, onnxscript or "
            "onnxruntime may mend it: pip install -c constraints.txt -e '.[onnx]'"
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(options.out, content)
    print(
        f"{spec.backbone}, {spec.size} px, {len(content) / 2**20:.1f} MiB; at most {found:.1g} "
        f"from torch: {options.out}"
    )
    return found


class Probabilities(nn.Module):
    """What the file computes."""

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
    inputs = tuple(each[:3] for each in noise(trained))
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


def about(run: Path, trained: Trained) -> dict[str, str]:
    """What a user of the file must know, as ONNX keeps it: words by name."""
    facts, metrics = read_json(run / RUN), read_json(run / METRICS)
    data = Path(read_yaml(run / CONFIG)["data"])
    info = load_table(data)[1] if (data / MARKER).exists() else {}
    spec, look = trained.model.spec, trained.look
    found = {
        "class": OUTPUT,
        "output": "probability that the lesion is malignant, 0 to 1",
        "size": str(spec.size),
        "prepare": f"{FITS[look.fit]}, Lanczos to {spec.size} px, RGB / 255",
        "fit": look.fit,
        "clean": ",".join(look.clean) or "none",
        "backbone": spec.backbone,
        "best_epoch": str(facts["best_epoch"]),
        "licence_of_training_images": info.get("licence") or "unknown",
        "use": "research only; not a medical device",
    }
    if trained.target.name == "diagnosis":
        found["classes"] = ",".join(trained.target.classes)
    if trained.fusion:
        found["columns"] = json.dumps(trained.fusion.encoder.describe())
    for part in ("val", "test"):
        if (value := metrics.get(part, {}).get("auc")) is not None:
            found[f"{part}_auc"] = f"{value:.4f}"
    if facts["leaky"]:
        found["leaky"] = f"its figures are no results: {facts['leaky']}"
    return found


def noise(trained: Trained) -> tuple[torch.Tensor, ...]:
    """The model's inputs, for max(BATCHES) images that mean nothing."""
    spec, rng, n = trained.model.spec, generator(0, "export"), max(BATCHES)
    images = torch.from_numpy(rng.random((n, 3, spec.size, spec.size), np.float32))
    if not spec.columns:
        return (images,)
    return images, torch.from_numpy(rng.standard_normal((n, spec.columns), np.float32))


def samples(run: Path, trained: Trained) -> list[tuple[torch.Tensor, ...]]:
    """Inputs to compare on: noise and, where they are, training images."""
    found = [noise(trained)]
    data = Path(read_yaml(run / CONFIG)["data"])
    if (data / MARKER).exists():
        size = trained.model.spec.size
        dataset = load_dataset(data, size)
        rows = np.arange(max(BATCHES)) % len(dataset.images)
        images = load_batch(np.asarray(dataset.images[rows]), size, None)
        fusion = trained.fusion
        found.append((images, torch.from_numpy(fusion.of(dataset, rows))) if fusion else (images,))
    return found


@torch.inference_mode()
def difference(
    onnxruntime: ModuleType,
    content: bytes,
    trained: Trained,
    batches: list[tuple[torch.Tensor, ...]],
) -> float:
    """Largest difference of a probability between an ONNX file and torch, over BATCHES."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    torchs, worst = Probabilities(trained).eval(), 0.0
    for inputs in batches:
        for n in BATCHES:
            batch = [each[:n].contiguous() for each in inputs]
            named = zip(INPUTS, batch, strict=False)  # no columns where the model takes none
            given = session.run(None, {name: each.numpy() for name, each in named})
            for found, expected in zip(given, torchs(*batch), strict=True):
                if found.shape != tuple(expected.shape) or found.dtype != np.float32:
                    return float("inf")
                gap = np.abs(found - expected.numpy()).max()
                worst = float(np.maximum(worst, gap))  # keeps NaN
    return worst


def _onnxruntime() -> ModuleType:
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


if __name__ == "__main__":
    cli.run(ExportOptions, export, "classifier.export", __doc__ or "")
