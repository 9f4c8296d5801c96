"""Pairs of images that show the same lesion again, whatever their ids say.

A copy may be mirrored, turned by 90 degrees, re-encoded, resized, cropped or shifted a little, or
differ in brightness. Three stages (data.preparation.likeness), each strict on what the one before
lets through:

1. alike as a whole, all pairs in all eight orientations, by matrix products;
2. alike in fine structure after the best of a few zooms, rotations and shifts;
3. the same fine structure, place by place, after registration.

`python -m benchmarks.duplicates` measures what is found, and at what cost.
"""

import hashlib
import mmap
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import fft
from threadpoolctl import threadpool_limits

from data.preparation import likeness
from data.preparation.likeness import COARSE, FINE, oriented
from data.preparation.scratch import mapped, read_scratch, write_scratch
from dermsynth import progress
from dermsynth.machine import cores
from dermsynth.records import canonical

ALIKE, SHIFTED, REGISTERED = 0.77, 0.36, 0.45  # least correlation at the three stages
BEST, EFFORT = 64, 1_300_000  # candidates after the first stage: an image's least, all images'
TRIED = ((1.0, 0), (0.9, 0), (1.1, 0), (1.0, 5), (1.0, -5))  # zooms and degrees, second stage
REACH = COARSE // 8  # px, largest shift at the second stage
ROWS, COLUMNS = 128, 1024  # images compared at a time; ROWS are done again after a kill
BATCH = 512  # candidates compared at a time
SCRATCH = "duplicates"  # folder of what is found meanwhile
FORM = 5  # of what lies in scratch; grows when the stages change


def _lag_tables() -> tuple[np.ndarray, np.ndarray]:
    """Shifts (x, y) [121, 2], and the inverse DFT to them alone, float32 [40 * 21 * 2, 121].

    It takes the real view of a complex half spectrum: a product is faster than irfft2 here.
    """
    side = np.arange(-REACH, REACH + 1)
    shifts = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    down, along = np.meshgrid(np.arange(COARSE), np.arange(COARSE // 2 + 1), indexing="ij")
    phase = np.exp(2j * np.pi / COARSE * (np.stack([along, down], -1).reshape(-1, 2) @ shifts.T))
    twice = np.where((along == 0) | (along == COARSE // 2), 1, 2).reshape(-1, 1)
    lags = np.stack([phase.real, -phase.imag], 1) * (twice / COARSE**2)[:, None]
    return shifts, lags.reshape(-1, len(shifts)).astype(np.float32)


SHIFTS, LAGS = _lag_tables()


class Candidates(NamedTuple):
    """Pairs that may match if the first is seen in an orientation; all [m]."""

    row: np.ndarray
    column: np.ndarray  # > row
    orientation: np.ndarray  # 0..7
    score: np.ndarray  # of the latest stage

    def where(self, keep: np.ndarray) -> "Candidates":
        """Those with `keep` (bool or rows [m])."""
        return Candidates(*(values[keep] for values in self))


class Descriptors(NamedTuple):
    """What the first two stages compare, a row an image; memory maps."""

    waves: np.ndarray  # float32 [n, 150], of length 1, less where little varies
    fine: np.ndarray  # int8 [n, 40, 40]


def near_duplicates(images: np.ndarray, scratch: Path | None = None) -> np.ndarray:
    """Row pairs (int64 [m, 2], i < j, sorted) of uint8 [n, size, size, 3] that match.

    `images` may be a memory map; a thread takes about 100 MB. What is found meanwhile (2.2 kB an
    image) lies in a temporary folder, or in the folder `scratch`: there a second call with the same
    images goes on after a kill. Of one image's look-alikes further down only the best are looked at
    closely (64, more below 20,000 images): of a crowd of copies not every pair is found, but every
    copy is in one.
    """
    if len(images) < 2:
        return np.zeros((0, 2), np.int64)
    starts = range(0, len(images), ROWS)
    with (
        _folder(images, scratch) as folder,
        threadpool_limits(1, "blas"),  # each thread does its own products
        ThreadPoolExecutor(cores()) as executor,
    ):
        descriptors = _describe_all(images, folder, executor)
        files = {start: folder / f"pairs-{start:09}" for start in starts}
        pairs = {start: _read_pairs(file) for start, file in files.items()}
        rest = [start for start in starts if pairs[start] is None]
        total = sum(len(images) - start for start in rest)
        results = executor.map(partial(_compare, images, descriptors), rest)
        with progress.bar(total, "comparing", "image") as bar:
            for start, found in zip(rest, results, strict=True):
                write_scratch(files[start], found.tobytes())
                pairs[start] = found
                bar.update(len(images) - start)
        del descriptors  # close the maps before their folder goes
        return np.concatenate([pairs[start] for start in starts])


def identical_pairs(sha256: np.ndarray) -> np.ndarray:
    """Row pairs (int64 [m, 2]) of equal hashes; of k equal rows the first with each other one."""
    _, first, value = np.unique(sha256, return_index=True, return_inverse=True)
    rows = np.arange(len(sha256))
    pairs = np.column_stack([first[value], rows])
    return pairs[pairs[:, 0] != rows]


# ------------------------------------------------------------------------------ what is compared


def _describe_all(images: np.ndarray, folder: Path, executor: ThreadPoolExecutor) -> Descriptors:
    """The descriptors of all images; those that `folder` holds already are not done again."""
    count = len(images)
    descriptors = Descriptors(
        mapped(folder / "waves", np.float32, (count, likeness.ORDER.shape[1])),
        mapped(folder / "fine", np.int8, (count, COARSE, COARSE)),
    )

    def describe(start: int) -> int:
        rows = slice(start, start + ROWS)
        descriptors.waves[rows] = np.stack([likeness.waves(image) for image in images[rows]])
        descriptors.fine[rows] = np.stack([likeness.quantised(image) for image in images[rows]])
        return start

    starts = range(0, count, ROWS)
    files = {start: folder / f"looked-{start:09}" for start in starts}
    rest = [start for start in starts if not _is_looked(files[start], descriptors, start)]
    with progress.bar(len(rest) * ROWS, "looking", "image") as bar:
        for start in executor.map(describe, rest):
            write_scratch(files[start], _digest(descriptors, start))
            _let_go(images, *descriptors)
            bar.update(ROWS)
    return descriptors


# ------------------------------------------------------------------------------------ the stages


def _compare(images: np.ndarray, descriptors: Descriptors, start: int) -> np.ndarray:
    """Pairs [m, 2] that pass all stages, sorted, whose first row is in `start`..`start + ROWS`."""
    kept, maps = shifted(_alike(descriptors.waves, start), images, descriptors.fine, start)
    order = np.lexsort((-kept.score, kept.column, kept.row))
    kept, maps = kept.where(order), maps[order]
    pairs = np.column_stack([kept.row, kept.column])
    first = np.append(True, (pairs[1:] != pairs[:-1]).any(1))[: len(pairs)]
    kept, maps, pairs = kept.where(first), maps[first], pairs[first]  # one orientation each
    return pairs[registered(kept, maps, images)].astype(np.int64)


def _alike(waves: np.ndarray, start: int) -> Candidates:
    """What passes the first stage, only the best of each image."""
    rows, most = np.asarray(waves[start : start + ROWS]), max(BEST, EFFORT // len(waves))
    turned = {turn: likeness.reoriented(rows, turn) for turn in (0, 4)}
    level = np.full(len(rows), ALIKE, np.float32)  # grows where an image has too many
    candidates: list[Candidates] = []
    count = 0
    for left in range(start, len(waves), COLUMNS):
        columns = np.asarray(waves[left : left + COLUMNS])
        for turn, queries in turned.items():
            for mirror, scores in enumerate(_mirrored(queries, columns)):
                at = np.flatnonzero(scores > level[:, None])
                row, column = (at // len(columns) + start, at % len(columns) + left)
                orientation = np.full(len(at), turn + mirror, np.int8)
                new = Candidates(
                    row.astype(np.int32), column.astype(np.int32), orientation, scores.ravel()[at]
                )
                candidates.append(new.where(row < column))
                count += len(candidates[-1].row)
        if count > 8 * most * ROWS:
            candidates, level = _best(candidates, most, start, level)
            count = len(candidates[0].row)
    return _best(candidates, most, start, level)[0][0]


def _mirrored(queries: np.ndarray, columns: np.ndarray) -> list[np.ndarray]:
    """queries @ columns.T [rows, columns] for the four mirrorings of the queries.

    A mirroring changes the signs of whole classes of waves, so four small products give all.
    """
    same, one, other, both = (queries[:, kind] @ columns[:, kind].T for kind in likeness.CLASSES)
    plus, minus = same + one, np.subtract(same, one, out=same)
    sums, differences = other + both, np.subtract(other, both, out=other)
    return [plus + sums, minus + differences, plus - sums, minus - differences]


def _best(
    candidates: list[Candidates], most: int, start: int, level: np.ndarray
) -> tuple[list[Candidates], np.ndarray]:
    """The best of each row, at most `most`, and the score that others must exceed."""
    whole = Candidates(*(np.concatenate(values) for values in zip(*candidates, strict=True)))
    whole = whole.where(np.lexsort((-whole.score, whole.row)))
    rank = np.arange(len(whole.row)) - np.searchsorted(whole.row, whole.row)
    last = whole.where(rank == most - 1)
    level = level.copy()
    level[last.row - start] = last.score
    return [whole.where(rank < most)], level


def registered(candidates: Candidates, maps: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Which pass the third stage, bool [m]; `maps` as `shifted` gives them."""
    same = np.zeros(len(maps), bool)
    for at, (row, column, orientation, _) in enumerate(zip(*candidates, strict=True)):
        view = oriented(images[row], orientation)
        same[at] = likeness.registered(view, images[column], maps[at]) >= REGISTERED
        _let_go(images)
    return same


def shifted(
    candidates: Candidates, images: np.ndarray, fine: np.ndarray, start: int
) -> tuple[Candidates, np.ndarray]:
    """What passes the second stage; with the maps (float32 [m, 2, 3], px of `FINE`) that fit best.

    A map leads from a place in the column's image to one in the row's image, oriented.
    """
    candidates = candidates.where(np.argsort(candidates.column, kind="stable"))
    views = (candidates.row - start) * 8 + candidates.orientation
    views, view = np.unique(views, return_inverse=True)
    spectra = _spectra(images[start : start + ROWS], views)
    _let_go(images)
    scores = np.zeros(len(candidates.row), np.float32)
    maps = np.zeros((len(scores), 2, 3), np.float32)
    maps_back = np.array(  # mirrored, an image turns the other way
        [[likeness.turning(zoom, way * by, FINE)[1] for zoom, by in TRIED] for way in (1, -1)]
    )
    for at in range(0, len(scores), BATCH):
        batch = slice(at, at + BATCH)
        other = fft.rfft2(_unit(fine[candidates.column[batch]])).conj()
        _let_go(fine)
        product = (spectra[view[batch]] * other[:, None]).reshape(-1, COARSE * (COARSE // 2 + 1))
        match = (product.view(np.float32) @ LAGS).reshape(len(other), -1)
        scores[batch] = match.max(1)
        tried, place = np.divmod(match.argmax(1), len(SHIFTS))
        back = maps_back[np.bitwise_count(candidates.orientation[batch]) % 2, tried]
        shift = np.column_stack([SHIFTS[place] * (FINE / COARSE), np.ones(len(place))])
        maps[batch] = back
        maps[batch, :, 2] = (back @ shift[..., None])[..., 0]
    keep = scores > SHIFTED
    return candidates._replace(score=scores).where(keep), maps[keep]


def _spectra(images: np.ndarray, views: np.ndarray) -> np.ndarray:
    """complex64 [m, tried, 40, 21] of `views`: row * 8 + orientation, [m], sorted."""
    shown = np.zeros((len(views), len(TRIED), COARSE, COARSE), np.int8)
    last, fine = -1, np.zeros(0)
    for at, (row, orientation) in enumerate(zip(*np.divmod(views, 8), strict=True)):
        if row != last:
            tried = [likeness.turned(images[row], zoom, by) for zoom, by in TRIED]
            last, fine = row, np.stack([likeness.quantised(image) for image in tried], -1)
        shown[at] = np.moveaxis(oriented(fine, orientation), -1, 0)
    return fft.rfft2(_unit(shown))


def _unit(values: np.ndarray) -> np.ndarray:
    """float32 [..., h, w], each centred, of length 1; all zeros where nothing varies."""
    centred = values - values.mean((-2, -1), dtype=np.float32, keepdims=True)
    length = np.linalg.norm(centred, axis=(-2, -1), keepdims=True)
    centred *= (length > 1e-3) / np.maximum(length, 1e-3)
    return centred


# --------------------------------------------------------------------------------------- scratch


@contextmanager
def _folder(images: np.ndarray, scratch: Path | None) -> Iterator[Path]:
    """Where the work lies: what an earlier call left there, if it was about the same images.

    Anything else there is thrown away.
    """
    if scratch is None:
        with tempfile.TemporaryDirectory(prefix="duplicates-") as name:
            yield Path(name)
        return
    folder, state = scratch / SCRATCH, _state(images)
    if read_scratch(folder / "state") != state:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_scratch(folder / "state", state)
    yield folder


def _state(images: np.ndarray) -> bytes:
    """What must be the same for work to go on: settings and images (by a sample of them)."""
    sample = images[np.linspace(0, len(images) - 1, 64).astype(int)]
    state = {
        "settings": [
            *(FORM, ALIKE, SHIFTED, REGISTERED, BEST, EFFORT),
            *(*np.ravel(TRIED).tolist(), ROWS),
        ],
        "shape": list(images.shape),
        "sample": zlib.crc32(np.ascontiguousarray(sample)),
    }
    return canonical(state)


def _is_looked(file: Path, descriptors: Descriptors, start: int) -> bool:
    """Whether the descriptors of the images from `start` on are what was written."""
    return (digest := read_scratch(file)) is not None and digest == _digest(descriptors, start)


def _digest(descriptors: Descriptors, start: int) -> bytes:
    rows = slice(start, start + ROWS)
    return hashlib.sha256(b"".join(values[rows].tobytes() for values in descriptors)).digest()


def _read_pairs(file: Path) -> np.ndarray | None:
    """int64 [m, 2]; None where they are still to be found."""
    content = read_scratch(file)
    return None if content is None else np.frombuffer(content, np.int64).reshape(-1, 2)


def _let_go(*arrays: np.ndarray) -> None:
    """Unmap what was read of memory maps: until somebody needs the space it counts as ours."""
    for array in arrays:
        if isinstance(array, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
            array._mmap.madvise(mmap.MADV_DONTNEED)
