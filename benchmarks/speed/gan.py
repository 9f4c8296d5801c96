"""Training images a second of the generators, beside the usual loop around the same networks."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import limits, made_up, references
from benchmarks.speed.place import Place
from benchmarks.speed.timing import Way, comparison, in_turn, significant
from data.store import Dataset, load_dataset
from dermsynth.device import resolve
from gan.networks import make_config
from gan.sampling import sample
from gan.trainer import Trainer
from gan.training_images import TrainingImages, training_part

COMPARED = ("lesiongan", "sngan", "dcgan")  # one training step fits all, so does one plain loop
OTHERS = ("projected", "fastgan", "stylegan2")
NOT_CARRIED = ("StyleGAN2-ADA", "Projected GAN")  # of their authors


def measure(place: Place) -> dict[str, Any]:
    """Comparisons, limits, images made, costs by resolution."""
    size, count = place.pick(32, 128, 128), place.pick(120, 600, 1200)
    data = made_up.dataset(place.scratch / "gan", count, size)
    stored = load_dataset(data)
    part = training_part(stored, 0, "none")
    files = made_up.files(stored.images[part.rows], place.scratch / "gan-files")
    comparisons, shares = [], []
    for arch in COMPARED[: 1 if place.quick else None]:
        mine = Mine(place, stored, arch, size)
        steps = place.pick(2, 3, 40 if mine.trainer.config.critic_steps == 1 else 20)
        ways = [Way("ours", lambda mine=mine, steps=steps: mine.advance(steps), True)]
        for bf16 in (False, True)[: 1 + (mine.precision == "bf16")]:
            name = f"usual loop, same networks, DataLoader, {'bf16' if bf16 else 'fp32'}"
            ways += place.optional(
                name, lambda name, mine=mine, n=steps, bf16=bf16: plain(name, mine, files, n, bf16)
            )
        times = in_turn(ways, place.rounds, place.device)
        what = f"{arch}, {size} px, batch {mine.trainer.config.batch}"
        amount = steps * mine.trainer.images_a_step
        comparisons.append(comparison(f"training, {what}", amount, "images", times))
        step = [value / steps for value in times[0].seconds]
        shares.append(mine.limit(what, step))
        if arch == COMPARED[0]:
            comparisons.append(generation(place, mine))
        del mine, ways
    if not place.quick:
        comparisons.append(rates_of_others(place, stored, size))
    for name in NOT_CARRIED:
        place.note(f"{name}, its authors' code: not measured, its licence forbids carrying it")
    curve = by_resolution(place)
    return {"comparisons": comparisons, "limits": shares, "curves": [curve]}


class Mine:
    """Our training of an architecture, images included."""

    def __init__(
        self, place: Place, stored: Dataset, arch: str, size: int, batch: int | None = None
    ) -> None:
        self.place = place
        compute = resolve(place.device.type, "auto", cpu_auto="bf16")  # type: ignore[arg-type]
        self.precision = compute.precision
        config = make_config(arch, size)
        if batch is not None:
            config = type(config)(size=size, batch=batch)
        self.trainer = Trainer(arch, config, 0, compute)
        part = training_part(stored, 0, "none")
        self.images = TrainingImages(stored, part, 0, compute.device)
        self.trainer.begin_from(self.images.first(references.MOST_SHOWN))

    def advance(self, steps: int) -> None:
        """So many steps; what they measured is read every ten, as in a training."""
        trainer = self.trainer
        for _ in range(steps):
            images, _ = self.images.batch(trainer.steps, trainer.images_a_step)
            trainer.step(images)
            if trainer.steps % 10 == 0:
                trainer.take_means(10)

    def limit(self, what: str, seconds: list[float]) -> dict[str, Any]:
        """The share of the machine's limit, and the GPU's memory."""
        graph, self.trainer._graph.record = self.trainer._graph.record, False
        work = limits.count(lambda: self.advance(1))
        peak = self.place.peak_mib(lambda: self.advance(1))
        self.trainer._graph.record = graph
        row = limits.share(what, work, seconds, self.precision, self.place.ceilings)
        return row | {"gpu_peak_mib": peak}


def plain(name: str, mine: Mine, files: list[Path], steps: int, bf16: bool) -> Way:
    """The usual loop around the same networks."""
    config, device = mine.trainer.config, mine.place.device
    transform = references.by_torchvision(config.size)
    data = references.ImageFiles(files, [1] * len(files), transform)
    loop = references.PlainGan(mine.trainer.arch, config, device)
    loop.begin_from(torch.stack([data[number][0] for number in range(min(64, len(data)))]))
    loader = references.Loader(data, mine.trainer.images_a_step, device)
    return Way(name, lambda: loop.epoch(loader.take(steps), bf16), prepare=loader.start)


def generation(place: Place, mine: Mine) -> dict[str, Any]:
    """Images made a second: ours into memory, as a pool is; the usual way into PNGs."""
    count = place.pick(32, 256, 512)
    ema, compute, device = mine.trainer.ema, mine.trainer.compute, place.device
    ways = [
        Way("ours, into a pool's array", lambda: sample(ema, count, 0, compute), True),
        Way(
            "usual way, batches of 32, a PNG each",
            lambda: references.make_pngs(ema, count, 32, place.scratch / "pngs", str(device)),
        ),
    ]
    times = in_turn(ways, place.rounds, device)
    return comparison(f"making images, {mine.trainer.arch}", count, "images", times)


def rates_of_others(place: Place, stored: Dataset, size: int) -> dict[str, Any]:
    """Our architectures that no plain loop trains."""
    ways, steps = [], place.pick(1, 1, 30)
    for arch in OTHERS:
        mine = Mine(place, stored, arch, size, 16)
        ways.append(Way(f"{arch}, ours", lambda mine=mine: mine.advance(steps), True))
    times = in_turn(ways, min(place.rounds, 3), place.device)
    return comparison(f"training, {size} px, batch 16", 16 * steps, "images", times)


def by_resolution(place: Place) -> dict[str, Any]:
    """Seconds of a step of the default at each size, batch 16."""
    points, steps = [], place.pick(1, 1, 30)
    for size in place.pick((32, 64), (32, 64, 128), (64, 128, 256)):
        data = made_up.dataset(place.scratch / f"gan-{size}", 120, size)
        mine = Mine(place, load_dataset(data), COMPARED[0], size)
        (times,) = in_turn(
            [Way("", lambda mine=mine: mine.advance(steps), True)], 3, place.device, 2
        )
        points.append(
            {
                "at": size,
                "seconds": significant(min(times.seconds) / steps),
                "cpu_seconds": significant(min(times.cpu_seconds) / steps),
                "gpu_peak_mib": place.peak_mib(lambda mine=mine: mine.advance(1)),
            }
        )
    what = f"a step, {COMPARED[0]}, batch {mine.trainer.config.batch}"
    return {"what": what, "over": "side in pixels", "points": points}
