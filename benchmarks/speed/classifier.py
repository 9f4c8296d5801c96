"""Training images a second of the classifier, beside the scripts that people write.

All take the same number of steps of the same batch, from images on disk to the optimizer; ours
reads a prepared dataset, the scripts JPEGs of the same size (the cheapest they could ask for).
"""

import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed import limits, made_up, references
from benchmarks.speed.place import LATER, Pieces, Place
from benchmarks.speed.timing import Way, comparison, in_turn, significant
from classifier.options import BatchNormMode, TrainOptions
from classifier.training.loop import Loop
from classifier.training.setup import build_model, look_up
from classifier.training.trunk_cache import FeatureCache
from classifier.tta import probabilities
from data.store import load_dataset
from dermsynth import device as devices
from dermsynth import interrupts
from dermsynth.options import DeviceName, replace

CASES = [("efficientnet-b3", 18), ("efficientnet-lite0", 7)]
EPOCHS = 20  # of the whole trainings that are worked out
VIEWS = 8
FRESH, KEPT = "ours, fresh views", "ours, frozen part kept"
ADAPTS = "ours, fresh views, adapting batch norm"
TRUNK = "ours, frozen part alone, once a view"


def measure(place: Place) -> Pieces:
    """Comparisons, limits and costs by resolution."""
    size, batch = place.pick(64, 128, 128), place.pick(8, 64, 64)
    steps, count = place.pick(2, 4, 100), place.pick(96, 1024, 2048)
    data = made_up.dataset(place.scratch / "classifier", count, size)
    stored = load_dataset(data)
    rows = stored.rows("train", 0)
    paths = made_up.files(stored.images[rows], place.scratch / "classifier-files")
    targets = stored.targets(rows).tolist()
    cases, seconds = [], []
    for backbone, frozen in CASES[: 1 if place.quick else None]:
        case = Case(place, data, backbone, frozen, size, batch)
        times = in_turn(
            [*case.ours(steps), *case.references(paths, targets, steps)],
            place.rounds,
            place.device,
        )
        table = comparison(f"training, {case}", steps * batch, "images", times)
        yield {"comparisons": [table, whole_training(table, count)]}
        yield {"comparisons": [case.inference(stored.images[: place.pick(16, 256, 2048)])]}
        cases.append(case)
        seconds.append({each.way: statistics.median(each.seconds) / steps for each in times})
    yield LATER
    for case, a_step in zip(cases, seconds, strict=True):
        yield {"limits": case.limits(a_step)}
    yield LATER
    for case, a_step in zip(cases, seconds, strict=True):
        yield {"busy": case.busy(a_step)}
    yield LATER
    yield {"curves": [by_resolution(place)]}
    yield LATER
    for case in cases if place.compiled and place.on_gpu else []:
        yield {"comparisons": [case.compiled(steps)]}


class Case:
    """A backbone with frozen blocks, trained in all ways."""

    def __init__(
        self, place: Place, data: Path, backbone: str, frozen: int, size: int, batch: int
    ) -> None:
        self.place, self.size, self.batch = place, size, batch
        self.backbone, self.frozen = backbone, frozen
        what = (data, backbone, frozen)
        how = (size, batch, place.device.type, place.scratch)
        self.loops = {KEPT: make_loop(*what, VIEWS, *how), FRESH: make_loop(*what, 0, *how)}
        if "b3" in backbone:  # what a script does that sets requires_grad alone
            self.loops[ADAPTS] = make_loop(*what, 0, *how, batch_norm="adapt")
        self.precision = self.loops[FRESH].compute.precision

    def __str__(self) -> str:
        how = f"{self.size} px, batch {self.batch}"
        return f"{self.backbone}, {self.frozen} blocks frozen, {how}"

    def ours(self, steps: int) -> list[Way]:
        """With fresh views, with what the trunk gives kept, with the trunk trained along; and the
        trunk alone."""
        kept = self.loops[KEPT]
        with interrupts.stop_request() as stop:
            kept.batches.fill(range(steps), stop)
        images = kept.batches.real
        rows = np.resize(kept.setup.training.rows, steps * self.batch)
        views = np.full(len(rows), VIEWS - 1)
        trainings = [
            Way(name, lambda name=name: advance(self.loops[name], steps), True)
            for name in (FRESH, KEPT, ADAPTS)
            if name in self.loops
        ]
        return [*trainings, Way(TRUNK, lambda: kept.trunk._compute(images, rows, views), True)]

    def references(self, paths: list[Path], targets: list[int], steps: int) -> list[Way]:
        """The script, timm's network in a better script, and that without reading images."""
        device, bf16 = self.place.device, self.precision == "bf16"
        few = self.place.pick(steps, steps, max(steps * 2 // 5, 1))  # a slow way's

        def script(name: str) -> Way:
            network = references.efficientnet_pytorch(self.backbone, self.size, self.frozen)
            return trained(name, network, {})

        def timm(name: str) -> Way:
            return trained(name, self.timm(), {"channels_last": True, "bf16": bf16})

        def timm_alone(name: str) -> Way:
            epoch = references.ClassifierEpoch(self.timm(), device, channels_last=True, bf16=bf16)
            return Way(name, lambda: epoch(self.at_hand(steps)))

        def timm_recorded(name: str) -> Way:
            epoch = references.RecordedEpoch(self.timm(), device, self.at_hand(1), bf16)
            return Way(name, lambda: epoch(self.at_hand(steps)))

        def trained(name: str, network: torch.nn.Module, how: dict[str, bool]) -> Way:
            data = references.ImageFiles(paths, targets, references.by_albumentations(self.size))
            loader = references.Loader(data, self.batch, device)
            epoch = references.ClassifierEpoch(network, device, **how)
            work = lambda: epoch(loader.take(few))  # noqa: E731
            return Way(name, work, prepare=loader.start, part=few / steps)

        optional, better = self.place.optional, f"timm, channels last, {self.precision}"
        recorded = f"{better}, one CUDA graph a step, the same images at hand"
        return [
            *optional(f"{self.library}, albumentations, DataLoader, fp32", script),
            *optional(f"{better}, albumentations, DataLoader", timm),
            *optional(f"{better}, the same images at hand", timm_alone),
            *(optional(recorded, timm_recorded) if self.place.on_gpu else []),
        ]

    @property
    def library(self) -> str:
        """The package that scripts take this backbone from."""
        return "efficientnet-lite-pytorch" if "lite" in self.backbone else "efficientnet-pytorch"

    def timm(self) -> torch.nn.Module:
        """timm's network, its first blocks frozen."""
        return references.timm(self.backbone, self.frozen)

    def at_hand(self, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The same batch again and again, on the device."""
        device, shape = self.place.device, (self.batch, 3, self.size, self.size)
        images, targets = torch.rand(shape, device=device), torch.zeros(self.batch, device=device)
        return itertools.repeat((images, targets), steps)

    def inference(self, images: np.ndarray) -> dict[str, Any]:
        """Scores of uint8 images in memory; ours is what `classifier.predict` does."""
        loop, device, batch = self.loops[FRESH], self.place.device, self.batch
        target, bf16 = loop.setup.target, self.precision == "bf16"
        fast, compute = loop.model.for_inference(), loop.compute
        starts = range(0, len(images), batch)

        def ours() -> None:
            for start in starts:
                probabilities(fast, target, images[start : start + batch], compute)

        def timm(name: str) -> Way:
            scorer = references.Scorer(self.timm(), device, channels_last=True, bf16=bf16)
            return Way(name, lambda: [scorer(images[s : s + batch]) for s in starts])

        def script(name: str) -> Way:
            network = references.efficientnet_pytorch(self.backbone, self.size, self.frozen)
            scorer = references.Scorer(network, device)
            return Way(name, lambda: [scorer(images[s : s + batch]) for s in starts])

        ways = [
            Way("ours", ours, True),
            *self.place.optional(f"timm, channels last, {self.precision}", timm),
            *self.place.optional(f"{self.library}, fp32", script),
        ]
        times = in_turn(ways, self.place.rounds, device)
        what = f"scores, {self.backbone}, {self.size} px, batch {batch}"
        return comparison(what, len(images), "images", times)

    def limits(self, seconds: dict[str, float]) -> list[dict[str, Any]]:
        """Of a step of each loop of ours; it takes so many seconds."""
        found = []
        for name, loop in self.loops.items():
            graph, loop._graph.record = loop._graph.record, False
            work = limits.count(lambda loop=loop: advance(loop, 1))
            peak = self.place.peak_mib(lambda loop=loop: advance(loop, 1))
            loop._graph.record = graph
            what = f"{self.backbone}, {name.removeprefix('ours, ')}"
            best = self.place.ceilings
            row = limits.share(what, work, [seconds[name]], self.precision, best)
            found.append(row | {"gpu_peak_mib": peak})
        return found

    def busy(self, seconds: dict[str, float], steps: int = 10) -> list[dict[str, Any]]:
        """The share of a step in which the GPU works."""
        found = []
        for name, loop in self.loops.items():
            busy = self.place.busy_seconds(lambda loop=loop: advance(loop, steps))
            what = f"{self.backbone}, {name.removeprefix('ours, ')}"
            found += [] if busy is None else [limits.busy(what, busy / steps, seconds[name])]
        return found

    def compiled(self, steps: int) -> dict[str, Any]:
        """timm's network under torch.compile beside ours."""
        began = time.monotonic()
        network = torch.compile(self.timm().to(self.place.device), mode="reduce-overhead")
        bf16 = self.precision == "bf16"
        epoch = references.ClassifierEpoch(network, self.place.device, True, bf16)
        epoch(self.at_hand(3))
        torch.cuda.synchronize()
        took = time.monotonic() - began
        self.place.note(f"timm's {self.backbone} took {took:.0f} s to compile")
        name = f"timm, {self.precision}, torch.compile(reduce-overhead), the same images at hand"
        ways = [
            *(Way(n, lambda n=n: advance(self.loops[n], steps), True) for n in (FRESH, KEPT)),
            Way(name, lambda: epoch(self.at_hand(steps))),
        ]
        times = in_turn(ways, self.place.rounds, self.place.device)
        what = f"training, compiled, {self}"
        return comparison(what, steps * self.batch, "images", times)


def make_loop(
    data: Path,
    backbone: str,
    frozen: int,
    views: int,
    size: int,
    batch: int,
    device: DeviceName,
    scratch: Path,
    batch_norm: BatchNormMode = "fixed",
) -> Loop:
    """A training of ours before its first step, with random weights."""
    options = replace(
        TrainOptions(),
        data=data,
        backbone=backbone,
        frozen=frozen,
        batch_norm=batch_norm,
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
    seconds = {KEPT: VIEWS * images / rate[TRUNK] + seen / rate[KEPT]} | {
        way: seen / value
        for way, value in rate.items()
        if way not in (KEPT, TRUNK) and "at hand" not in way
    }
    return {
        "what": f"worked out: {EPOCHS} epochs of {images} images, {measured['what'][10:]}",
        "amount": seen,
        "unit": "images",
        "ways": [
            {
                "way": way,
                "ours": way.startswith("ours"),
                "rate": significant(seen / value),
                "ours_times_as_fast": significant(value / seconds[KEPT]),
                "seconds": [significant(value)],
            }
            for way, value in seconds.items()
        ],
    }


def by_resolution(place: Place) -> dict[str, Any]:
    """Seconds of a step of lite0 at each size, fresh views."""
    sizes = place.pick((32, 64), (64, 128, 256), (64, 128, 256))
    sizes = (*sizes, 512) if place.large else sizes
    batch, points = place.pick(4, 16, 64), []
    for size in sizes:
        data = made_up.dataset(place.scratch / f"classifier-{size}", 6 * 2 * batch, size)
        case = Case(place, data, "efficientnet-lite0", 7, size, batch)
        loop = case.loops[FRESH]
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
