"""What the search for duplicates finds and costs on HAM10000: recall, false pairs, scale.

    python -m data.prepare --source ham10000 --root DIR
    python -m benchmarks.duplicates

Copies of some images are made in ten ways and hidden among all of them. Beside it stands the usual
way, a 64-bit perceptual hash in eight orientations within a Hamming distance. Then come time and
memory, on HAM10000 alone and on as many made-up images (blends of two, cropped and mirrored, with
1% copies hidden among them) as asked for. A run that was killed goes on in --scratch. The pairs
across lesion ids go to a contact sheet there, to be judged by eye.
"""

import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import imagehash
import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.provenance import provenance
from data.preparation.duplicates import near_duplicates
from data.preparation.likeness import oriented
from data.store import load_dataset
from dermsynth import cli, progress, seeds
from dermsynth.files import write_json

HAMMING = (4, 8, 12)  # bits, radii of the perceptual hash that are tried
Rng = np.random.Generator
Change = Callable[[np.ndarray, Rng], np.ndarray]


@dataclass(frozen=True)
class Options:
    """Options of `python -m benchmarks.duplicates`."""

    data: Path = Path("datasets/ham10000")  # prepared HAM10000
    copies: int = 500  # images that are copied in each way
    made_up: int = 100_000  # made-up images of the run at scale; 0: none
    seed: int = 0  # of copies and made-up images
    scratch: Path = Path("runs/duplicates")  # 52 kB a made-up image; may be deleted afterwards
    out: Path = Path("benchmarks/results/duplicates.json")  # where the figures go


# ---------------------------------------------------------------------------------------- copies


def moved(image: np.ndarray, angle: float, right: float = 0, down: float = 0) -> np.ndarray:
    """Turned (degrees) and shifted (shares of the side)."""
    size = len(image)
    turn = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle, 1)
    turn[:, 2] += (right * size, down * size)
    return cv2.warpAffine(image, turn, (size, size), borderMode=cv2.BORDER_REFLECT)


def cropped(image: np.ndarray, rng: Rng, share: float = 0.9) -> np.ndarray:
    """A random square of the side's `share`, enlarged to the old size."""
    size, side = len(image), round(len(image) * share)
    top, left = rng.integers(0, size - side + 1, 2)
    part = image[top : top + side, left : left + side]
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_CUBIC)


def as_jpeg(image: np.ndarray, quality: int = 60) -> np.ndarray:
    """Encoded and decoded again."""
    _, content = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]


def smaller(image: np.ndarray) -> np.ndarray:
    """Shrunk to 60% and enlarged again."""
    side = round(0.6 * len(image))
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[:2], interpolation=cv2.INTER_CUBIC)


def lit(image: np.ndarray, factor: float) -> np.ndarray:
    """The image, brighter or darker by a factor."""
    return np.clip(image * factor, 0, 255).astype(np.uint8)


def shifted_hue(image: np.ndarray, degrees: int) -> np.ndarray:
    """The image with its hues turned by so many degrees."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + degrees // 2) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def everything(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Cropped, turned by up to 4 degrees, brighter or darker, in any orientation, re-encoded."""
    changed = lit(moved(cropped(image, rng), rng.uniform(-4, 4)), rng.uniform(0.88, 1.12))
    return as_jpeg(np.ascontiguousarray(oriented(changed, int(rng.integers(8)))), 70)


CHANGES: dict[str, Change] = {
    "mirrored or turned by 180 degrees": lambda image, rng: oriented(image, rng.integers(1, 4)),
    "turned by 90 degrees or transposed": lambda image, rng: oriented(image, rng.integers(4, 8)),
    "JPEG quality 60": lambda image, rng: as_jpeg(image),
    "resized to 60% and back": lambda image, rng: smaller(image),
    "cropped to 90%, off centre": cropped,
    "shifted by up to 6%": lambda image, rng: moved(image, 0, *rng.uniform(-0.06, 0.06, 2)),
    "brightness +-15%": lambda image, rng: lit(image, rng.choice([0.85, 1.15])),
    "rotated by 5 degrees": lambda image, rng: moved(image, rng.choice([-5, 5])),
    "hue +-16 degrees": lambda image, rng: shifted_hue(image, rng.choice([-16, 16])),
    "cropped, rotated, lit, mirrored or turned, JPEG": everything,
}


# --------------------------------------------------------------------------------------- figures


def measure_recall(
    images: np.ndarray, lesion: np.ndarray, known: np.ndarray, options: Options
) -> dict:
    """Share of the copies paired with their original; pairs of lesions that `known` has not."""
    rng = seeds.generator("duplicates", options.seed)
    count = len(images)
    picked = rng.choice(count, options.copies, replace=False)
    copies = [change(images[row], rng) for change in CHANGES.values() for row in picked]
    pairs = near_duplicates(np.concatenate([images, np.stack(copies)]))
    origin = np.concatenate([np.arange(count), np.tile(picked, len(CHANGES))])
    one, other = origin[pairs].T
    direct = pairs[(one == other) & (pairs[:, 0] < count)]
    kind = np.bincount((direct[:, 1] - count) // options.copies, minlength=len(CHANGES))
    alike = {(a, b) for a, b in known.tolist()} | {(a, b) for a, b in known[:, ::-1].tolist()}
    strange = [
        (a, b)
        for a, b in zip(one.tolist(), other.tolist(), strict=True)
        if lesion[a] != lesion[b] and (a, b) not in alike
    ]
    hashes = _hash_recall(images, copies, picked, lesion)
    return {
        "images": count,
        "copies_of_each_kind": options.copies,
        "recall": dict(zip(CHANGES, (kind / options.copies).round(4).tolist(), strict=True)),
        "further_pairs_across_lesions": len(set(strange)),
        "perceptual_hash": hashes,
    }


def _hash_recall(
    images: np.ndarray, copies: list[np.ndarray], picked: np.ndarray, lesion: np.ndarray
) -> dict:
    """The same by a 64-bit perceptual hash in eight orientations, at several radii."""

    def bits(image: np.ndarray) -> np.uint64:
        phash = imagehash.phash(Image.fromarray(np.ascontiguousarray(image))).hash
        return np.packbits(phash).view(np.uint64)[0]

    def distance(turned: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.bitwise_count(turned[..., None] ^ rows).min(0)

    plain = np.array([bits(image) for image in images])
    turned = np.array([[bits(oriented(image, k)) for image in copies] for k in range(8)])
    origins = np.tile(plain[picked], len(CHANGES))
    right = np.bitwise_count(turned ^ origins).min(0).reshape(len(CHANGES), -1)
    own = np.array([[bits(oriented(images[row], k)) for row in picked] for k in range(8)])
    wrong = distance(own, plain)[lesion[picked][:, None] != lesion]
    return {
        f"within {radius} bits": {
            "recall": dict(zip(CHANGES, (right <= radius).mean(1).round(4).tolist(), strict=True)),
            "pairs_across_lesions": int(
                (wrong <= radius).mean() * len(images) * (len(images) - 1) / 2
            ),
        }
        for radius in HAMMING
    }


def measure_cost(images: np.ndarray, scratch: Path | None) -> tuple[np.ndarray, dict]:
    """The pairs, with seconds and the peak of this process's memory that no file backs."""
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            peak[0] = max(peak[0], _anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    wall, cpu = time.time(), time.process_time()
    try:
        pairs = near_duplicates(images, scratch)
    finally:
        ended.set()
        watcher.join()
    return pairs, {
        "images": len(images),
        "pairs": len(pairs),
        "seconds": round(time.time() - wall),
        "cpu_seconds": round(time.process_time() - cpu),
        "peak_anonymous_mb": round(peak[0] / 1e6),
    }


def _anonymous() -> int:
    """Bytes of this process that no file backs (Linux), else its peak of all."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def make_up(images: np.ndarray, options: Options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A memory map of made-up images, their parents [n, 2], and the pairs [m, 2] hidden in them."""
    path, count = options.scratch / f"made-up-{options.made_up}.npy", options.made_up
    hidden = count // 100
    rng = seeds.generator("made up", options.seed)
    parents = rng.integers(len(images), size=(count, 2))
    copied = rng.choice(count - hidden, hidden, replace=False)
    pairs = np.column_stack([copied, np.arange(count - hidden, count)])
    parents[pairs[:, 1]] = parents[copied]
    if path.exists():
        return np.load(path, mmap_mode="r"), parents, pairs
    options.scratch.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    made = np.lib.format.open_memmap(partial, "w+", np.uint8, (count, *images.shape[1:]))
    with progress.bar(count - hidden, "making up", "image") as bar:
        for row in range(count - hidden):
            one, other = (
                oriented(cropped(images[parent], rng, rng.uniform(0.6, 1)), int(rng.integers(8)))
                for parent in parents[row]
            )
            share = rng.uniform(0.35, 0.65)
            made[row] = one * share + other * (1 - share)
            bar.update(1)
    for row, copy in pairs:
        made[copy] = everything(made[row], rng)
    made.flush()
    partial.rename(path)
    return np.load(path, mmap_mode="r"), parents, pairs


def save_sheet(images: np.ndarray, table: pd.DataFrame, pairs: np.ndarray, path: Path) -> None:
    """A PNG of pairs side by side, two pairs a row, with the image ids."""
    name = table["image_id"].to_numpy()
    tiles = []
    for one, other in pairs:
        both = cv2.resize(np.concatenate([images[one], images[other]], 1), (512, 256))
        cv2.putText(both, f"{name[one]} {name[other]}", (4, 14), 0, 0.4, (0, 0, 0), 1)
        tiles.append(cv2.copyMakeBorder(both, 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=(255,) * 3))
    tiles += [np.full_like(tiles[0], 255)] * (len(tiles) % 2)
    rows = [np.concatenate(tiles[at : at + 2], 1) for at in range(0, len(tiles), 2)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)


def main(options: Options) -> None:
    """Measure everything, print it, write the JSON."""
    dataset = load_dataset(options.data)
    images, table = dataset.images, dataset.table
    name, lesion = (table[column].to_numpy() for column in ("image_id", "lesion_id"))
    pairs, cost = measure_cost(images, None)
    across = pairs[lesion[pairs[:, 0]] != lesion[pairs[:, 1]]]
    print(cost, f"{len(across)} across lesion ids", flush=True)
    if len(across):
        save_sheet(images, table, across, options.scratch / "across-lesions.png")
    content = {
        **provenance("benchmarks.duplicates", "numpy", "scipy", "opencv-python-headless"),
        "options": cli.as_plain(options),
        "pairs_across_lesions": [f"{name[one]} {name[other]}" for one, other in across],
        "cost": [cost],
        "recall": measure_recall(images, lesion, pairs, options),
    }
    print(content["recall"], flush=True)
    write_json(options.out, content)
    if options.made_up:
        made, parents, hidden = make_up(images, options)
        pairs, cost = measure_cost(made, options.scratch)
        expected, found = ({(a, b) for a, b in some.tolist()} for some in (hidden, pairs))
        common = (parents[pairs[:, 0], :, None] == parents[pairs[:, 1], None]).any((1, 2))
        cost["pairs_without_common_parent"] = int((~common).sum())
        cost["hidden_copies_found"] = round(len(expected & found) / len(expected), 4)
        content["cost"].append(cost)
        print(cost, flush=True)
        write_json(options.out, content)


if __name__ == "__main__":
    cli.run(Options, main, "benchmarks.duplicates", __doc__)
