"""A picture of training images as they are stored beside what training makes of them."""

import io
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from classifier.augment import draw_views, load_batch
from classifier.training.mixup import mix_batch
from classifier.training.setup import TrainingSetup
from classifier.training.training_set import BENIGN, MALIGNANT, REAL
from dermsynth.files import write_bytes
from dermsynth.seeds import generator

FILE = "augmented.png"
VERSIONS = 6  # of an image, beside the one that is stored
OF_A_KIND = 3  # images
SIDE, GAP, LINE = 96, 4, 16  # px: of a picture at most, between pictures, of a line of text


def draw_sheet(setup: TrainingSetup, folder: Path) -> None:
    """Write FILE: a row an image, the stored one at the network's size first; synthetic ones last.

    The versions are drawn as training draws them, mixing included, with dice of their own. Where
    images are trained on as they are, there is nothing to show and no file.
    """
    options = setup.options.augmentation
    if options.augment == "none" and not options.mixes:
        return
    rng = generator(setup.options.compute.seed, "augmented sheet")
    rows, words = _chosen(setup, rng)
    plain = torch.cat([load_batch(row[None], setup.spec.size, None) for row in rows])
    columns = [plain]
    for _ in range(VERSIONS):
        drawn = draw_views(rng, len(rows), options.augment)
        views = [drawn.take(np.array([at])) if drawn else None for at in range(len(rows))]
        pairs = zip(rows, views, strict=True)
        changed = [load_batch(row[None], setup.spec.size, view) for row, view in pairs]
        columns.append(torch.cat(changed))
        if options.mixes:
            columns[-1] = mix_batch(columns[-1], torch.eye(len(rows)), rng, options)[0]
    folder.mkdir(exist_ok=True)
    pixels = torch.stack(columns, 1).permute(0, 1, 3, 4, 2).mul(255).round().byte().numpy()
    sheet, content = _mosaic(pixels, words, _title(setup)), io.BytesIO()
    sheet.save(content, "PNG", compress_level=2)  # a tenth larger, thrice as fast
    write_bytes(folder / FILE, content.getvalue())


def _chosen(setup: TrainingSetup, rng: np.random.Generator) -> tuple[list[np.ndarray], list[str]]:
    """Images uint8 [s, s, 3] of the training set, at most OF_A_KIND of a kind, and their words."""
    training, meaning = setup.training, setup.target.meaning
    kinds = [
        (setup.dataset, REAL, True, meaning.one),
        (setup.dataset, REAL, False, meaning.zero),
        (setup.pool, MALIGNANT, True, f"{meaning.one}, synthetic"),
        (setup.benign_pool, BENIGN, False, f"{meaning.zero}, synthetic"),
    ]
    images, words = [], []
    for stored, source, target, word in kinds:
        of_kind = training.rows[(training.source == source) & (training.targets == target)]
        if stored is None or not len(of_kind):
            continue
        of_kind = np.unique(of_kind)
        for row in rng.choice(of_kind, min(OF_A_KIND, len(of_kind)), replace=False):
            images.append(np.asarray(stored.images[np.array([row])])[0])
            words.append(word)
    return images, words


def _title(setup: TrainingSetup) -> str:
    options = setup.options.augmentation
    shares = {"CutMix": options.cutmix, "MixUp": options.mixup}
    mixed = [f"{name} {share:g}" for name, share in shares.items() if share]
    return "stored, then as trained on: " + ", ".join([options.augment, *mixed])


def _mosaic(pixels: np.ndarray, words: list[str], title: str) -> Image.Image:
    """The pictures uint8 [rows, columns, s, s, 3], a line of text above each row."""
    count, columns = pixels.shape[:2]
    side = min(SIDE, pixels.shape[2])
    step, font = side + GAP, ImageFont.load_default(12)
    size = (max(columns * step + GAP, 330), LINE + GAP + count * (step + LINE))
    sheet = Image.new("RGB", size, "white")
    text = ImageDraw.Draw(sheet)
    text.text((GAP, 2), title, "black", font)
    for row in range(count):
        top = LINE + GAP + row * (step + LINE)
        text.text((GAP, top), words[row], "black", font)
        for column in range(columns):
            small = cv2.resize(pixels[row, column], (side, side), interpolation=cv2.INTER_AREA)
            sheet.paste(Image.fromarray(small), (GAP + column * step, top + LINE))
    return sheet
