"""Speed of fine-tuning with and without the kept trunk, and what fixed views cost in AUC.

    OMP_NUM_THREADS=1 python -m benchmarks.classifier
    OMP_NUM_THREADS=1 python -m benchmarks.classifier --data datasets/ham10000 --seeds 1

Steps of all ways are timed in turn, in one process on one thread, in seconds of processor time, so
that other load on the machine hardly matters. With --data, real trainings compare 8 fixed views
with fresh augmentation.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from efficientnet_lite_pytorch import EfficientNet as LiteNet
from efficientnet_pytorch import EfficientNet
from torch import nn

from benchmarks.provenance import provenance
from classifier.model.backbones import LITE
from classifier.model.classifier import Classifier, ModelSpec
from classifier.options import TrainOptions
from classifier.run_folder import open_run, read_facts
from classifier.train import train
from classifier.training.trunk_cache import FeatureCache
from dermsynth import cli, device
from dermsynth.files import write_json
from dermsynth.options import replace

CASES = [("efficientnet-lite0", 7), ("efficientnet-lite0", 11), ("efficientnet-b3", 18)]


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.classifier`."""

    rounds: int = 5  # timings of each way; their median counts
    batch: int = 64  # images a step
    size: int = 128  # side in pixels
    data: Path | None = None  # also train on this dataset, with fixed and with fresh views
    seeds: int = 1  # trainings of each
    epochs: int = 4  # of those
    frozen: int = 7  # of those, of lite0's 16 blocks
    out: Path = Path("benchmarks/results/classifier.json")  # where the figures go


def step_of(
    forward: Callable[[torch.Tensor], torch.Tensor], module: nn.Module, x: torch.Tensor
) -> Callable[[], None]:
    """One training step without the optimizer."""

    def step() -> None:
        module.zero_grad()
        forward(x).square().mean().backward()

    return step


def ways(backbone: str, frozen: int, options: Options) -> dict[str, Callable[[], None]]:
    """The same step in several ways; `library` is the package as it comes, blocks frozen."""
    library = LiteNet if backbone in LITE else EfficientNet
    plain = library.from_name(backbone, image_size=options.size, num_classes=1).train()
    for part in (plain._conv_stem, plain._bn0, *plain._blocks[:frozen]):
        part.requires_grad_(False).eval()
    model = Classifier(ModelSpec(backbone, options.size, frozen))
    model = model.to(memory_format=torch.channels_last).train()
    folded = model.folded()
    folded.backbone.net.to(torch.bfloat16)
    x = torch.rand(options.batch, 3, options.size, options.size)
    last = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        kept = folded.trunk(last)

    def bf16_trunk(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features = folded.trunk(x).float()
        return model.tail(features)

    return {
        "library": step_of(plain, plain, x),
        "plain activations, channels last": step_of(model, model, last),
        "folded bf16 trunk in every step": step_of(bf16_trunk, model, last),
        "kept features": step_of(lambda f: model.tail(f.float()), model, kept),
    }


def time_steps(options: Options) -> list[dict[str, object]]:
    """Median processor seconds a step of every way, interleaved."""
    rows: list[dict[str, object]] = []
    for backbone, frozen in CASES:
        step_by_way = ways(backbone, frozen, options)
        seconds: dict[str, list[float]] = {name: [] for name in step_by_way}
        for number in range(options.rounds + 1):
            for name, step in step_by_way.items():
                start = time.process_time()
                step()
                if number:  # the first round warms up
                    seconds[name].append(time.process_time() - start)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        for name, median in medians.items():
            rows.append(
                {
                    "backbone": backbone,
                    "frozen": frozen,
                    "way": name,
                    "images_per_cpu_second": round(options.batch / median, 1),
                    "times_library": round(medians["library"] / median, 2),
                }
            )
            print(rows[-1])
    return rows


def compare_views(options: Options, data: Path) -> list[dict[str, object]]:
    """Test AUC and time of real trainings with 8 fixed views and with fresh augmentation."""
    rows: list[dict[str, object]] = []
    cache = FeatureCache(8)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for views in (8, 0):
                out = Path(folder) / f"{views}-{seed}"
                choices = replace(
                    TrainOptions(),
                    data=data,
                    backbone="efficientnet-lite0",
                    frozen=options.frozen,
                    size=options.size,
                    epochs=options.epochs,
                    views=views,
                    seed=seed,
                    tracking="none",
                    out=out,
                )
                start = time.process_time()
                metrics = train(choices, cache)
                row = {"views": views, "seed": seed, "test_auc": metrics["test"]["auc"]}
                row |= {"val_auc": metrics["val"]["auc"]}
                row |= {"cpu_seconds": round(time.process_time() - start, 1)}
                row |= {"steps": read_facts(open_run(out)).steps}
                rows.append(row)
                print(json.dumps(row))
    return rows


def main(options: Options) -> None:
    """Measure and write the results."""
    device.resolve("cpu", "fp32")  # the allocator's settings of every command
    result = {
        **provenance("benchmarks.classifier", "torch", "efficientnet-pytorch"),
        "threads": torch.get_num_threads(),
        "bf16": torch.cpu._is_avx512_bf16_supported(),
        "options": {key: str(value) for key, value in asdict(options).items()},
        "steps": time_steps(options),
        "views": compare_views(options, options.data) if options.data else [],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, result)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.classifier", __doc__)
