"""A stage of the work in a process of its own, which works when it is told to.

    python -m benchmarks.stages STAGE FOLDER SIZE

FOLDER is what `make_folder` made. It says "ready THREADS", and then, for every line with a number
of seconds, works so long and answers with how many images it did in how many seconds.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

STAGES = (
    *("data.prepare", "gan.train", "classifier.train, kept", "classifier.train, fresh"),
    "gan.evaluate",
)
SCRATCH_IMAGES = 240


def make_folder(folder: Path, size: int) -> None:
    """What the stages work on: a dataset, and JPEGs of photographs."""
    from benchmarks.speed import data, made_up

    folder.mkdir(parents=True)
    made_up.dataset(folder / "dataset", SCRATCH_IMAGES, size)
    data.photographs(64, (600, 450), folder / "photographs" / "class")


def work_of(stage: str, folder: Path, size: int) -> Callable[[], int]:
    """A function that does a little of the stage and says how many images that was."""
    import torch

    from data.store import load_dataset
    from dermsynth.device import resolve

    if stage == "data.prepare":
        from data.images.decoding import Preprocessing, decode, decode_all

        paths, how = sorted((folder / "photographs").rglob("*.jpg")), Preprocessing(size)
        alone = torch.get_num_threads() == 1
        if alone:  # its threads are as many as the machine has cores, whatever torch's are
            return lambda: len([decode(path, how) for path in paths])
        return lambda: len(list(decode_all(paths, how)))
    dataset, bf16 = load_dataset(folder / "dataset"), resolve("cpu", "auto", cpu_auto="bf16")
    if stage == "gan.train":
        from gan.networks import make_config
        from gan.trainer import Trainer
        from gan.training_images import TrainingImages, training_part

        trainer = Trainer("lesiongan", make_config("lesiongan", size), 0, bf16)
        images = TrainingImages(dataset, training_part(dataset, 0, "none"), 0)

        def step() -> int:
            trainer.step(images.batch(trainer.steps, trainer.images_a_step)[0])
            return trainer.images_a_step

        return step
    if stage == "gan.evaluate":
        from gan.evaluation.features import BATCH, extract, imagenet_network

        network, pixels = imagenet_network(), dataset.images[range(BATCH)]
        return lambda: len(extract(pixels, bf16, "images", network))
    from benchmarks.speed.classifier import advance, make_loop

    views = 8 if stage.endswith("kept") else 0
    loop = make_loop(folder / "dataset", "efficientnet-lite0", 7, views, size, 32, "cpu", folder)

    def train() -> int:
        advance(loop, 2)
        return 64

    return train


def main(stage: str, folder: Path, size: int) -> NoReturn:
    """Obey the lines of stdin."""
    import torch

    work = work_of(stage, folder, size)
    work()
    print("ready", torch.get_num_threads(), flush=True)
    for line in sys.stdin:
        began, done = time.monotonic(), 0
        while time.monotonic() - began < float(line):
            done += work()
        print(done, time.monotonic() - began, flush=True)
    sys.exit()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
