"""Speed of `data.images.decoding.decode_all` against a Pillow loop and torchvision's ImageFolder.

    OMP_NUM_THREADS=1 python -m benchmarks.data

All ways turn the same JPEGs into the same number of pixels, in turn, in one run. JPEGs are made
from real images: as they are, and enlarged with grain to the sizes in which ISIC publishes them.
`decode_all` also computes SHA-256 and perceptual hash of each image; the others do not. What
scaled decoding costs in accuracy is measured against decoding every pixel and the same filter.
With simplejpeg installed, bare decoders are compared too. Takes about 3 minutes on two cores.
"""

import hashlib
import io
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from benchmarks.provenance import provenance
from data.images.cleaning import CLEANERS
from data.images.decoding import Preprocessing, decode, decode_all, perceptual_hash
from data.images.files import Encoded, find_images
from dermsynth import cli
from dermsynth.files import write_json
from dermsynth.vision import library

SHAPES = {"1024x1024": (1024, 1024), "1024x768": (1024, 768), "as they are": None}
PACKAGES = ("pillow", "opencv-python-headless", "torch", "torchvision", "imagehash", "simplejpeg")
LANCZOS = Image.Resampling.LANCZOS


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.data`."""

    root: Path = Path("../shared/data/isic2019")  # real images, at least 512 px a side
    images: int = 64  # of them
    size: int = 128  # side of the result, px
    rounds: int = 7  # timings of each way; the shortest counts, other load only adds
    workers: int = 2  # processes of the DataLoader
    out: Path = Path("benchmarks/results/data.json")  # where the figures go


def make_images(options: Options, folder: Path, shape: tuple[int, int] | None) -> list[Path]:
    """JPEGs of (width, height) in a class folder below `folder`; None: the files as they are."""
    (folder / "class").mkdir(parents=True)
    files = find_images(options.root)
    rng = np.random.default_rng(0)
    paths = []
    for number, path in enumerate(files[:: max(1, len(files) // options.images)][: options.images]):
        paths.append(folder / "class" / f"{number:04d}.jpg")
        if shape is None:
            paths[-1].write_bytes(path.read_bytes())
            continue
        large = np.asarray(Image.open(path).convert("RGB").resize(shape, Image.Resampling.BICUBIC))
        grain = cv2.GaussianBlur(rng.normal(0, 6, large.shape).astype(np.float32), (3, 3), 0.7)
        pixels = np.clip(large + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def ways(options: Options, folder: Path, paths: list[Path]) -> dict[str, Callable[[], object]]:
    """The same work in several ways; each returns when all images are done."""
    from torch.utils.data import DataLoader

    transforms = library("torchvision.transforms")

    size = options.size
    square = transforms.Compose([transforms.Resize((size, size)), transforms.PILToTensor()])
    dataset = library("torchvision.datasets").ImageFolder(str(folder), square)
    loader = DataLoader(dataset, batch_size=32, num_workers=options.workers)
    sources = [Encoded(path) for path in paths]
    return {
        "PIL open, convert, resize": lambda: [
            np.asarray(Image.open(path).convert("RGB").resize((size, size))) for path in paths
        ],
        "ImageFolder": lambda: [image for image, _ in dataset],
        f"ImageFolder, DataLoader of {options.workers} processes": lambda: list(loader),
        "decode, one thread": lambda: [decode(path, Preprocessing(size)) for path in paths],
        "decode_all": lambda: list(decode_all(sources, Preprocessing(size))),
    }


def cleanings(options: Options, paths: list[Path]) -> dict[str, Callable[[], object]]:
    """Decoding with each cleaner."""
    sources = [Encoded(path) for path in paths]
    ways = {"none": Preprocessing(options.size)}
    ways |= {name: Preprocessing(options.size, clean=(name,)) for name in CLEANERS}
    return {name: lambda how=how: list(decode_all(sources, how)) for name, how in ways.items()}


def decoders(options: Options, paths: list[Path]) -> dict[str, Callable[[], object]]:
    """Bare decoders on one thread, to at least the size: no filter, no checks, no hashes."""
    contents, size = [path.read_bytes() for path in paths], options.size

    def pillow(content: bytes, margin: int | None) -> Image.Image:
        image = Image.open(io.BytesIO(content))
        if margin:
            image.draft("RGB", (margin * size, margin * size))
        image.load()
        return image

    ways: dict[str, Callable[[], object]] = {
        "Pillow, every pixel": lambda: [pillow(content, None) for content in contents],
        "Pillow, draft to twice the size": lambda: [pillow(content, 2) for content in contents],
        "Pillow, draft to the size (in use)": lambda: [pillow(content, 1) for content in contents],
    }
    for part in (2, 4, 8):
        flag = getattr(cv2, f"IMREAD_REDUCED_COLOR_{part}")
        ways[f"OpenCV, 1/{part}"] = lambda flag=flag: [
            cv2.imdecode(np.frombuffer(content, np.uint8), flag) for content in contents
        ]
    try:
        import simplejpeg
    except ImportError:
        return ways
    for margin in (2, 1):
        least = margin * size
        ways[f"simplejpeg, to {margin} times the size"] = lambda least=least: [
            simplejpeg.decode_jpeg(content, "RGB", fastdct=True, min_width=least, min_height=least)
            for content in contents
        ]
    return ways


def timed(options: Options, ways: dict[str, Callable[[], object]]) -> list[dict[str, Any]]:
    """Most images a second of every way, and least milliseconds of processor time an image."""
    walls: dict[str, list[float]] = {name: [] for name in ways}
    cpus: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, work in ways.items():
            wall, cpu = time.perf_counter(), _cpu()
            work()
            if number:  # the first round warms up
                walls[name].append(time.perf_counter() - wall)
                cpus[name].append(_cpu() - cpu)
    shortest = {name: min(values) for name, values in walls.items()}
    first = next(iter(shortest.values()))
    rows = []
    for name, seconds in shortest.items():
        rows.append(
            {
                "way": name,
                "images_per_second": round(options.images / seconds, 1),
                "times_first": round(first / seconds, 2),
                "cpu_ms_per_image": round(1000 * min(cpus[name]) / options.images, 2),
            }
        )
        print(rows[-1])
    return rows


def _cpu() -> float:
    """Processor seconds of this process and its finished children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def accuracy(options: Options, paths: list[Path]) -> dict[str, float]:
    """Grey levels between scaled decoding and decoding every pixel, Lanczos both times."""
    mean, worst = [], []
    for path in paths:
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        full = np.asarray(image.resize((options.size, options.size), LANCZOS, box=box), float)
        difference = np.abs(full - decode(path, Preprocessing(options.size)).pixels)
        mean.append(difference.mean())
        worst.append(np.percentile(difference, 99))
    return {
        "mean_difference": round(float(np.mean(mean)), 3),
        "mean_difference_of_worst_image": round(float(np.max(mean)), 3),
        "percentile_99": round(float(np.mean(worst)), 2),
    }


def hashes(options: Options, paths: list[Path]) -> dict[str, float]:
    """Microseconds of processor time an image for the hashes that `decode` computes."""
    pixels = [decode(path, Preprocessing(options.size)).pixels for path in paths]
    contents = [path.read_bytes() for path in paths]

    def cost(work: Callable[[], object]) -> float:
        start = time.process_time()
        for _ in range(5):
            work()
        return round((time.process_time() - start) / 5 / len(paths) * 1e6, 1)

    return {
        "perceptual_hash_us": cost(lambda: [perceptual_hash(image) for image in pixels]),
        "sha256_us": cost(lambda: [hashlib.sha256(content).digest() for content in contents]),
    }


def main(options: Options) -> None:
    """Measure and write the results."""
    result: dict[str, Any] = {
        **provenance("benchmarks.data", *PACKAGES),
        "other_load": round(os.getloadavg()[0], 1),  # processes that waited before the start
        "options": {key: str(value) for key, value in asdict(options).items()},
        "images": {},
    }
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            paths = make_images(options, Path(folder), shape)
            print(name)
            result["images"][name] = {
                "mean_kilobytes": round(np.mean([p.stat().st_size for p in paths]) / 1000),
                "accuracy": accuracy(options, paths),
                "speed": timed(options, ways(options, Path(folder), paths)),
                "cleaners": timed(replace(options, rounds=2), cleanings(options, paths)),
                "decoders": timed(options, decoders(options, paths)),
                "hashes": hashes(options, paths),
            }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, result)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.data", __doc__)
