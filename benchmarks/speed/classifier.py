"""Training images a second of the classifier, beside the scripts that people write.

All take the same number of steps of the same batch, from images on disk to the optimizer; ours
reads a prepared dataset, the scripts JPEGs of the same size (the cheapest they could ask for).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed import limits, made_up, references
from benchmarks.speed.place import Place
from benchmarks.speed.timing import Way, comparison, in_turn, significant
from classifier.options import TrainOptions
from classifier.training.loop import Loop
from classifier.training.setup import build_model, look_up
from classifier.training.trunk_cache import FeatureCache
from data.store import load_dataset
from dermsynth import device as devices
from dermsynth import interrupts
from dermsynth.options import DeviceName, replace

CASES = [("efficientnet-lite0", 7), ("efficientnet-b3", 18)]
EPOCHS = 20  # of the whole trainings that are worked out
VIEWS = 8


def measure(place: Place) -> dict[str, Any]:
    """Comparisons, limits and costs by resolution."""
    size, batch = place.pick(64, 128, 128), place.pick(8, 64, 64)
    steps, count = place.pick(2, 4, 100), place.pick(96, 1024, 4096)
    data = made_up.dataset(place.scratch / "classifier", count, size)
    stored = load_dataset(data)
    rows = stored.rows("train", 0)
    paths = made_up.files(stored.images[rows], place.scratch / "classifier-files")
    targets = stored.targets(rows).tolist()
    comparisons, shares = [], []
    for backbone, frozen in CASES[: 1 if place.quick else None]:
        case = Case(place, data, backbone, frozen, size, batch)
        ways = [*case.ours(steps), *case.references(paths, targets, steps)]
        times = in_turn(ways, place.rounds, place.device)
        what = f"{backbone}, {frozen} blocks frozen, {size} px, batch {batch}"
        comparisons.append(comparison(f"training, {what}", steps * batch, "images", times))
        comparisons.append(whole_training(comparisons[-1], count))
        shares += case.limits({each.way: each.seconds for each in times}, steps)
        del case, ways
    return {
        "comparisons": comparisons,
        "limits": shares,
        "curves": [by_resolution(place)],
    }


class Case:
    """A backbone with frozen blocks, trained in all ways."""

    def __init__(
        self, place: Place, data: Path, backbone: str, frozen: int, size: int, batch: int
    ) -> None:
        self.place, self.size, self.batch = place, size, batch
        self.backbone, self.frozen = backbone, frozen
        what = (data, backbone, frozen)
        how = (size, batch, place.device.type, place.scratch)
        self.loops = {views: make_loop(*what, views, *how) for views in (VIEWS, 0)}
        self.precision = self.loops[0].compute.precision

    def ours(self, steps: int) -> list[Way]:
        """With what the trunk gives kept, and with fresh views; and the trunk alone."""
        kept, fresh = self.loops[VIEWS], self.loops[0]
        with interrupts.stop_request() as stop:
            kept.batches.fill(range(steps), stop)
        images = kept.batches.real
        rows = kept.setup.training.rows
        rows = np.resize(rows, steps * self.batch)
        views = np.full(len(rows), VIEWS - 1)
        computed = [Way("ours, frozen part alone, once a view", lambda: kept.trunk._compute(
            images, rows, views
        ), True)]  # fmt: skip
        return [
            Way("ours, fresh views", lambda: advance(fresh, steps), True),
            Way("ours, frozen part kept", lambda: advance(kept, steps), True),
            *computed,
        ]

    def references(self, paths: list[Path], targets: list[int], steps: int) -> list[Way]:
        """The script, timm's network in a better script, and that without reading images."""
        device, bf16 = self.place.device, self.precision == "bf16"

        def script(name: str) -> Way:
            network = references.efficientnet_pytorch(self.backbone, self.size, self.frozen)
            return trained(name, network, {})

        def timm(name: str) -> Way:
            network = references.timm(self.backbone, self.frozen)
            return trained(name, network, {"channels_last": True, "bf16": bf16})

        def timm_alone(name: str) -> Way:
            network = references.timm(self.backbone, self.frozen)
            images = torch.rand(self.batch, 3, self.size, self.size, device=device)
            at_hand = [(images, torch.zeros(self.batch, device=device))] * steps
            epoch = references.ClassifierEpoch(network, device, channels_last=True, bf16=bf16)
            return Way(name, lambda: epoch(iter(at_hand)))

        def trained(name: str, network: torch.nn.Module, how: dict[str, bool]) -> Way:
            data = references.ImageFiles(paths, targets, references.by_albumentations(self.size))
            loader = references.Loader(data, self.batch, device)
            epoch = references.ClassifierEpoch(network, device, **how)
            return Way(name, lambda: epoch(loader.take(steps)), prepare=loader.start)

        library = "efficientnet-lite-pytorch" if "lite" in self.backbone else "efficientnet-pytorch"
        better = f"timm, channels last, {self.precision}"
        return [
            *self.place.optional(f"{library}, albumentations, DataLoader, fp32", script),
            *self.place.optional(f"{better}, albumentations, DataLoader", timm),
            *self.place.optional(f"{better}, the same images at hand", timm_alone),
        ]

    def limits(self, seconds: dict[str, list[float]], steps: int) -> list[dict[str, Any]]:
        """Of a step of each loop of ours."""
        found = []
        for views, name in ((0, "ours, fresh views"), (VIEWS, "ours, frozen part kept")):
            loop = self.loops[views]
            graph, loop._graph.record = loop._graph.record, False
            work = limits.count(lambda loop=loop: advance(loop, 1))
            peak = self.place.peak_mib(lambda loop=loop: advance(loop, 1))
            loop._graph.record = graph
            step = [value / steps for value in seconds[name]]
            what = f"{self.backbone}, {name.removeprefix('ours, ')}"
            row = limits.share(what, work, step, self.precision, self.place.ceilings)
            row["gpu_peak_mib"] = peak
            found.append(row)
        return found


def make_loop(
    data: Path,
    backbone: str,
    frozen: int,
    views: int,
    size: int,
    batch: int,
    device: DeviceName,
    scratch: Path,
) -> Loop:
    """A training of ours before its first step, with random weights."""
    options = replace(
        TrainOptions(),
        data=data,
        backbone=backbone,
        frozen=frozen,
        weights="none",
        views=views,
        size=size,
        batch=batch,
        device=device,
        tracking="none",
        epochs=100,
        out=scratch / "no run",
    )
    setup = look_up(options)
    compute = devices.resolve(options.compute.device, options.compute.precision)
    return Loop(setup, build_model(setup)[0], compute, FeatureCache(), scratch)


def advance(loop: Loop, steps: int) -> None:
    """So many steps of a training, from the first one on, its losses read as in a training."""
    for step in range(steps):
        loop.step(step)
    loop._read_losses()
    loop.said.clear()


def whole_training(measured: dict[str, Any], images: int) -> dict[str, Any]:
    """Seconds of EPOCHS epochs by the measured rates; what is kept of views is computed first."""
    rate = {row["way"]: row["rate"] for row in measured["ways"]}
    seen = EPOCHS * images
    first = VIEWS * images / rate["ours, frozen part alone, once a view"]
    seconds = {
        "ours, frozen part kept": first + seen / rate["ours, frozen part kept"],
        **{
            way: seen / value
            for way, value in rate.items()
            if way not in ("ours, frozen part kept", "ours, frozen part alone, once a view")
            and "at hand" not in way
        },
    }
    ours = seconds["ours, frozen part kept"]
    return {
        "what": f"worked out: {EPOCHS} epochs of {images} images, {measured['what'][10:]}",
        "amount": seen,
        "unit": "images",
        "ways": [
            {
                "way": way,
                "ours": way.startswith("ours"),
                "rate": significant(seen / value),
                "ours_times_as_fast": significant(value / ours),
                "seconds": [significant(value)],
            }
            for way, value in seconds.items()
        ],
    }


def by_resolution(place: Place) -> dict[str, Any]:
    """Seconds of a step of lite0 at each size, fresh views."""
    sizes = place.pick((32, 64), (64, 128, 256), (64, 128, 256, 512))
    sizes = (*sizes, 512) if place.large and 512 not in sizes else sizes
    batch, points = place.pick(4, 16, 64), []
    for size in sizes:
        data = made_up.dataset(place.scratch / f"classifier-{size}", 6 * 2 * batch, size)
        case = Case(place, data, "efficientnet-lite0", 7, size, batch)
        loop = case.loops[0]
        (times,) = in_turn([Way("", lambda loop=loop: advance(loop, 2), True)], 3, place.device)
        points.append(
            {
                "at": size,
                "seconds": significant(min(times.seconds) / 2),
                "cpu_seconds": significant(min(times.cpu_seconds) / 2),
                "gpu_peak_mib": place.peak_mib(lambda loop=loop: advance(loop, 2)),
            }
        )
    return {"what": f"a step, lite0, batch {batch}", "over": "side in pixels", "points": points}
