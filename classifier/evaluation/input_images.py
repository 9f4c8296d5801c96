"""Images to be scored: those of a prepared dataset, or of a folder of image files."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from classifier.evaluation.likeness import stored_sides
from classifier.trained import Trained
from data.images.decoding import decode_all
from data.images.files import BadImage, escaped
from data.images.formats import IN_WORDS
from data.images.pictures import Pictures, find_pictures
from data.store import KIND, Dataset, load_dataset
from dermsynth.errors import UserError, counted, some
from dermsynth.manifest import is_finished

SHOWN = 10  # images that cannot be used, told one by one


class Batch(NamedTuple):
    """Some images, and where they come from."""

    names: list[str]
    images: np.ndarray  # uint8 [n, s, s, 3]
    dataset: Dataset | None
    rows: np.ndarray | None  # of the dataset
    sides: np.ndarray  # float64 [n, 2], width and height as stored, px; NaN: unknown


@dataclass
class Inputs:
    """Images in their order; what could not be used is known when all batches have been read."""

    count: int  # files or rows, the unusable ones too
    batches: Iterator[Batch]
    skipped: list[BadImage] = field(default_factory=list)


def read_batches(data: Path, trained: Trained, on_error: Literal["fail", "skip"]) -> Inputs:
    """The images of a dataset, of a folder without the masks and their like, or one image file.

    Raises UserError where there are no images, and while they are read for all that cannot be used:
    with `skip` only where none can.
    """
    if is_finished(data, KIND):
        if on_error == "skip":
            raise UserError(
                f"--on-error skip: {data} is a prepared dataset, all of whose images can be read; "
                "leave it out"
            )
        dataset = load_dataset(data, trained.model.spec.reads)
        _compare_looks(dataset, trained)
        return Inputs(len(dataset.table), _rows(dataset, trained.model.spec.at_once))
    if trained.metadata_inputs:
        raise UserError(
            f"--data {data}: the model looks at age, sex or site, which a folder of images does "
            "not tell; give a prepared dataset"
        )
    if not data.exists():
        raise UserError(
            f"--data {data}: no such file or folder; expected a dataset, a folder of images, or an "
            "image file"
        )
    if data.is_file():
        pictures, data = Pictures([data]), data.parent
    else:
        pictures = find_pictures(data)
    bad = [BadImage(path, reason) for path, reason in pictures.bad.items()]
    if not pictures.images:
        raise UserError(
            f"--data {data}: no images there; expected {IN_WORDS} files{pictures.hint(data)}"
        )
    for note in pictures.notes():
        print(f"note: {data}: {note}")
    names = [file.relative_to(data).with_suffix("").as_posix() for file in pictures.images]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"--data {data}: several files of one name: {some(twice)}; rename them")
    inputs = Inputs(len(names) + len(bad), iter(()), bad)
    inputs.batches = _decoded(inputs, names, pictures.images, trained, data, on_error)
    return inputs


def _rows(dataset: Dataset, at_once: int) -> Iterator[Batch]:
    names = dataset.table["image_id"].tolist()
    for start in range(0, len(names), at_once):
        rows = np.arange(start, min(start + at_once, len(names)))
        some_names, sides = names[start : start + at_once], stored_sides(dataset, rows)
        yield Batch(some_names, np.asarray(dataset.images[rows]), dataset, rows, sides)


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


def _decoded(
    inputs: Inputs,
    names: list[str],
    files: list[Path],
    trained: Trained,
    root: Path,
    on_error: Literal["fail", "skip"],
) -> Iterator[Batch]:
    """Batches of the files that can be used; the others go to `inputs.skipped`."""
    good: list[str] = []
    images: list[np.ndarray] = []
    sides: list[tuple[int, int]] = []
    at_once, any_good = trained.model.spec.at_once, False
    decoded = decode_all(files, trained.look, roots=(root,))
    for name, image in zip(names, decoded, strict=True):
        if isinstance(image, BadImage):
            inputs.skipped.append(image)
            continue
        any_good = True
        if inputs.skipped and on_error == "fail":  # nothing is written: only bad ones are sought
            continue
        good.append(name)
        images.append(image.pixels)
        sides.append((image.width, image.height))
        if len(images) == at_once:
            yield Batch(good, np.stack(images), None, None, np.array(sides, np.float64))
            good, images, sides = [], [], []
    if inputs.skipped and (on_error == "fail" or not any_good):
        skip = ", or leave them out with --on-error skip" if any_good else ""
        raise UserError(f"{what_is_wrong(inputs)}\nmend them or take them away{skip}")
    if images:
        yield Batch(good, np.stack(images), None, None, np.array(sides, np.float64))


def what_is_wrong(inputs: Inputs) -> str:
    """How many images cannot be used, by reason, and the first ten of them."""
    bad = inputs.skipped
    counts = Counter(image.reason for image in bad).most_common()
    reasons = "".join(f"\n  {count:,} {reason}" for reason, count in counts)
    lines = "".join(
        f"\n  {escaped(image.path)}: {image.reason.partition(';')[0]}" for image in bad[:SHOWN]
    )
    return (
        f"{len(bad):,} of {counted(inputs.count, 'image')} cannot be used:{reasons}\n"
        f"the first {min(SHOWN, len(bad))}:{lines}"
    )
