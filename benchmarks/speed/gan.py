"""Training images a second of the generators, beside the usual loop around the same networks.

And beside the authors' own code of two of them, where a folder has it (benchmarks.speed.authors).
"""

import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import authors, limits, made_up, references
from benchmarks.speed.place import LATER, Pieces, Place
from benchmarks.speed.timing import Times, Way, comparison, in_turn, significant
from data.store import Dataset, load_dataset
from dermsynth.cuda_graph import EAGER_STEPS
from dermsynth.device import resolve
from gan.networks import make_config
from gan.sampling import sample
from gan.trainer import Trainer
from gan.training_images import TrainingImages, training_part

COMPARED = ("lesiongan", "sngan", "dcgan")  # one training step fits all, so does one plain loop
OTHERS = ("projected", "fastgan", "stylegan2")
SAME = {authors.ADA: "stylegan2", authors.PROJECTED: "projected"}  # our architecture of that paper
PERIOD = 16  # iterations after which all kinds of steps have been taken, the lazy ones too


def measure(place: Place) -> Pieces:
    """Comparisons, limits, images made, costs by resolution."""
    size, count = place.pick(32, 128, 128), place.pick(120, 600, 1200)
    data = made_up.dataset(place.scratch / "gan", count, size)
    stored = load_dataset(data)
    part = training_part(stored, 0, "none")
    files = made_up.files(stored.images[part.rows], place.scratch / "gan-files")
    kept = []
    for arch in COMPARED[: 1 if place.quick else None]:
        mine = Mine(place, stored, arch, size)
        steps, few = place.pick(2, 3, 40), place.pick(2, 3, 8)
        ways = [
            Way("ours", lambda mine=mine, steps=steps: mine.advance(steps), True),
            *plain_ways(mine, files, few, few / steps),
        ]
        times = in_turn(ways, place.rounds, place.device)
        del ways  # and their loaders, or their threads would be at work while ours is recorded
        what = f"{arch}, {size} px, batch {mine.trainer.config.batch}"
        images = steps * mine.trainer.images_a_step
        yield {"comparisons": [rates(f"training, {what}", images, times)]}
        kept.append((what, mine, statistics.median(times[0].seconds) / steps))
        if arch == COMPARED[0]:
            yield {"comparisons": [generation(place, mine)]}
            yield from of_authors(place, stored, files)
    yield LATER
    yield {"limits": [mine.limit(what, [seconds]) for what, mine, seconds in kept]}
    if not place.quick:
        yield {"comparisons": [rates_of_others(place, stored, size)]}
    yield LATER
    yield {"busy": [row for what, mine, seconds in kept for row in mine.busy(what, seconds)]}
    yield LATER
    yield {"curves": [by_resolution(place)]}


def of_authors(place: Place, stored: Dataset, files: list[Path]) -> Pieces:
    """Ours and the authors' StyleGAN2-ADA and Projected GAN, each with both's numbers of images."""
    if place.others is None:
        place.note("the authors' StyleGAN2-ADA and Projected GAN: not measured without --others")
        return
    size = stored.size if stored.size >= 128 else 128  # the least of theirs
    if size != stored.size:
        stored = load_dataset(made_up.dataset(place.scratch / "gan-others", 120, size))
        rows = training_part(stored, 0, "none").rows
        files = made_up.files(stored.images[rows], place.scratch / "gan-others-files")
    for name, arch in SAME.items():
        few = place.pick(1, PERIOD if arch == "stylegan2" else 2, PERIOD)
        usual = make_config(arch, size).batch, authors.BATCHES[name]
        for batch in place.pick((2,), (4,), usual):
            mine = Mine(place, stored, arch, size, batch)
            mine.settle()
            work = lambda mine=mine, few=few: mine.advance(few)  # noqa: E731
            ways = [Way(f"{arch}, ours, {mine.precision}", work, True)]
            try:
                ways += theirs(place, name, files, size, batch, few)
            except Exception as error:  # others' code: what fails there fails alone
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                place.note(f"{name}, batch {batch}: not measured, {reason}")
            rounds = place.pick(1, 1, min(place.rounds, 2))
            times = in_turn(ways, rounds, place.device, warm_ups=0)  # both have begun
            del ways, work, mine
            what = f"training, {name}, {size} px, batch {batch}"
            yield {"comparisons": [rates(what, few * batch, times)]}


def theirs(
    place: Place, name: str, files: list[Path], size: int, batch: int, steps: int
) -> list[Way]:
    """The authors' training, its first step done."""
    assert place.others is not None
    training = authors.TRAININGS[name](place.others, files[0].parent, size, batch, place.device)
    training.loader.start()
    training.advance(1)
    for line in training.notes():
        place.note(f"{name}: {line}")
    work = lambda: training.advance(steps)  # noqa: E731
    return [Way(f"its authors', {training.precision}", work, prepare=training.loader.start)]


def rates(what: str, amount: int, times: list[Times]) -> dict[str, Any]:
    """A comparison of trainings, with thousands of images a minute, as these papers count."""
    table = comparison(what, amount, "images", times)
    for row in table["ways"]:
        row["kimg_per_minute"] = significant(row["rate"] * 60 / 1000)
    return table


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

    def settle(self) -> None:
        """On a GPU: until every kind of step has been recorded."""
        if self.place.on_gpu and not self.place.quick:
            self.advance((EAGER_STEPS + 1) * PERIOD)

    def busy(self, what: str, seconds: float, steps: int = 4) -> list[dict[str, Any]]:
        """The share of a step in which the GPU works."""
        busy = self.place.busy_seconds(lambda: self.advance(steps))
        return [] if busy is None else [limits.busy(what, busy / steps, seconds)]

    def limit(self, what: str, seconds: list[float]) -> dict[str, Any]:
        """The share of the machine's limit, and the GPU's memory."""
        graph, self.trainer._graph.record = self.trainer._graph.record, False
        work = limits.count(lambda: self.advance(1))
        peak = self.place.peak_mib(lambda: self.advance(1))
        self.trainer._graph.record = graph
        row = limits.share(what, work, seconds, self.precision, self.place.ceilings)
        return row | {"gpu_peak_mib": peak}


def plain_ways(mine: Mine, files: list[Path], steps: int, part: float) -> list[Way]:
    """The usual loop around the same networks, in fp32 and in our precision."""
    trainer, device = mine.trainer, mine.place.device

    def plain(name: str) -> Way:
        transform = references.by_torchvision(trainer.config.size)
        data = references.ImageFiles(files, [1] * len(files), transform)
        loop = references.PlainGan(trainer.arch, trainer.config, device)
        loop.begin_from(torch.stack([data[number][0] for number in range(min(64, len(data)))]))
        loader = references.Loader(data, trainer.images_a_step, device)
        bf16 = name.endswith("bf16")
        work = lambda: loop.epoch(loader.take(steps), bf16)  # noqa: E731
        return Way(name, work, prepare=loader.start, part=part)

    return [
        way
        for precision in dict.fromkeys(("fp32", mine.precision))
        for way in mine.place.optional(f"usual loop, same networks, DataLoader, {precision}", plain)
    ]


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
    """Our architectures that no plain loop trains, and that were not beside their authors'."""
    ways, steps = [], place.pick(1, 1, PERIOD)
    for arch in OTHERS if place.others is None else set(OTHERS) - set(SAME.values()):
        mine = Mine(place, stored, arch, size, 16)
        mine.settle()
        ways.append(Way(f"{arch}, ours", lambda mine=mine: mine.advance(steps), True))
    times = in_turn(ways, min(place.rounds, 3), place.device)
    return rates(f"training, {size} px, batch 16", 16 * steps, times)


def by_resolution(place: Place) -> dict[str, Any]:
    """Seconds of a step of the default at each size, batch 16."""
    points, steps = [], place.pick(1, 1, 10)
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
