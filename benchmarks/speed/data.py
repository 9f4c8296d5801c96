"""Preparing images, beside the loops that people write, and what whole datasets cost.

Ours also computes SHA-256 and perceptual hash of every image, and checks it; the others do not.
"""

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.speed import made_up, references
from benchmarks.speed.place import Pieces, Place
from benchmarks.speed.timing import Way, comparison, in_turn, run, significant
from data.images.decoding import Preprocessing, decode, decode_all
from data.images.files import Encoded
from dermsynth.vision import library

SHAPES = {"1024x768": (1024, 768), "600x450": (600, 450), "128x128": (128, 128)}
SIZE = 128  # px, of the result


def measure(place: Place) -> Pieces:
    """Decoding by image sizes; `data.prepare` by numbers of images."""
    shapes = dict(list(SHAPES.items())[-1:]) if place.quick else SHAPES
    for name, shape in shapes.items():
        paths = photographs(place.pick(16, 64, 256), shape, place.scratch / name / "class")
        times = in_turn(ways(place, paths), place.rounds, place.device)
        what = f"JPEGs of {name} to {SIZE} px"
        yield {"comparisons": [comparison(what, len(paths), "images", times)]}
    yield {"curves": [by_images(place)]}


def photographs(count: int, shape: tuple[int, int], folder: Path) -> list[Path]:
    """JPEGs of (width, height) with grain, at about as many bits a pixel as photographs have."""
    folder.mkdir(parents=True)
    drawn, rng = made_up.phantoms(SIZE), np.random.default_rng(0)
    paths = [folder / f"{number:04d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        large = cv2.resize(drawn[number % len(drawn)], shape, interpolation=cv2.INTER_CUBIC)
        grain = rng.normal(0, 6, large.shape).astype(np.float32)
        grain = cv2.GaussianBlur(grain, (3, 3), 0.7)
        pixels = np.clip(large + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)
    return paths


def ways(place: Place, paths: list[Path]) -> list[Way]:
    """The same work in several ways; each returns when all images are done."""
    sources = [Encoded(path) for path in paths]

    def image_folder(name: str) -> Way:
        transforms = library("torchvision.transforms")
        square = transforms.Compose([transforms.Resize((SIZE, SIZE)), transforms.PILToTensor()])
        kept = library("torchvision.datasets").ImageFolder(str(paths[0].parent.parent), square)
        if "processes" not in name:
            return Way(name, lambda: [image for image, _ in kept])
        loader = DataLoader(kept, batch_size=32, num_workers=references.WORKERS)
        return Way(name, lambda: list(loader))

    processes = f"ImageFolder, DataLoader of {references.WORKERS} processes"
    return [
        Way("ours, all cores", lambda: list(decode_all(sources, Preprocessing(SIZE))), True),
        Way("ours, one thread", lambda: [decode(p, Preprocessing(SIZE)) for p in paths], True),
        Way(
            "Pillow: open, convert, resize",
            lambda: [
                np.asarray(Image.open(path).convert("RGB").resize((SIZE, SIZE))) for path in paths
            ],
        ),
        *place.optional("torchvision's ImageFolder", image_folder),
        *place.optional(processes, image_folder),
    ]


def by_images(place: Place) -> dict[str, Any]:
    """`data.prepare` of a folder with a table, near-duplicates and folds included."""
    counts = place.pick((100, 200), (1000, 4000), (1000, 4000, 16_000))
    counts = (*counts, 16_000, 100_000, 400_000) if place.large else counts
    points = []
    for count in dict.fromkeys(counts):
        root = place.scratch / f"folder-{count}"
        pixels = made_up.images(count, 64, place.scratch)
        paths = made_up.files(pixels, root)
        target = np.arange(count) % 5 == 0
        table = pd.DataFrame({"image": [path.name for path in paths], "target": target.astype(int)})
        table.to_csv(root / "labels.csv", index=False)
        out = place.scratch / f"prepared-{count}"
        words = ["--source", "folder", "--root", str(root), "--size", "64", "--tracking", "none"]
        took = run([sys.executable, "-m", "data.prepare", *words, "--out", str(out)])
        points.append(
            {
                "at": count,
                "seconds": significant(took.seconds),
                "cpu_seconds": significant(took.cpu_seconds),
                "peak_mib": significant(took.peak_mib),
            }
        )
    what = "data.prepare, 64 px, libraries' loading included"
    return {"what": what, "over": "images", "points": points}
