"""Images to be scored: those of a prepared dataset, or of a folder of image files."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from classifier.trained import Trained
from data.images.decoding import decode_all
from data.images.files import BadImage, find_images
from data.store import KIND, Dataset, load_dataset
from dermsynth.errors import UserError, some
from dermsynth.manifest import is_finished

Batch = tuple[np.ndarray, Dataset | None, np.ndarray | None]  # images, their dataset and rows


def read_batches(data: Path, trained: Trained) -> tuple[list[str], Iterator[Batch]]:
    """Names, and images uint8 [n, s, s, 3] in their order with where they come from.

    Raises UserError where there are no images, and while they are read for all that cannot be used.
    """
    if is_finished(data, KIND):
        dataset = load_dataset(data, trained.model.spec.reads)
        _compare_looks(dataset, trained)
        n, at_once = len(dataset.table), trained.model.spec.at_once
        rows = (np.arange(start, min(start + at_once, n)) for start in range(0, n, at_once))
        batches = ((np.asarray(dataset.images[r]), dataset, r) for r in rows)
        return dataset.table["image_id"].tolist(), batches
    if trained.metadata_inputs:
        raise UserError(
            f"--data {data}: the model looks at age, sex or site, which a folder of images does "
            "not tell; give a prepared dataset"
        )
    if not data.is_dir():
        raise UserError(f"--data {data}: no such folder; expected a dataset or a folder of images")
    files = find_images(data)
    if not files:
        raise UserError(f"--data {data}: no images there; expected .jpg, .jpeg or .png files")
    names = [file.relative_to(data).with_suffix("").as_posix() for file in files]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"--data {data}: several files of one name: {some(twice)}; rename them")
    return names, ((images, None, None) for images in _decoded(files, trained, data))


def _compare_looks(dataset: Dataset, trained: Trained) -> None:
    """Say where a dataset's images were made in another way than those of the training."""
    made, trained_on = dataset.info.look, trained.about.look
    if made is None or trained_on is None:
        return
    for name, here, there in (
        ("--fit", made.fit, trained_on.fit),
        ("--clean", ",".join(made.clean) or "none", ",".join(trained_on.clean) or "none"),
    ):
        if here != there:
            print(
                f"warning: {dataset.path} was prepared with {name} {here}, the images that the "
                f"model was trained on with {name} {there}; its scores may suffer"
            )


def _decoded(files: list[Path], trained: Trained, root: Path) -> Iterator[np.ndarray]:
    batch: list[np.ndarray] = []
    bad: list[BadImage] = []
    for image in decode_all(files, trained.look, roots=(root,)):
        if isinstance(image, BadImage):
            bad.append(image)
        elif not bad:  # after the first nothing is written: only the others are looked for
            batch.append(image.pixels)
        if len(batch) == trained.model.spec.at_once:
            yield np.stack(batch)
            batch = []
    if bad:
        lines = "".join(f"\n  {image.path}: {image.reason}" for image in bad[:10])
        raise UserError(
            f"{len(bad):,} of {len(files):,} images cannot be used; the first {len(bad[:10])}:"
            f"{lines}\nmend them or take them away"
        )
    if batch:
        yield np.stack(batch)
