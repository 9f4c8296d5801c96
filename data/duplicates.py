"""Pairs of images that show the same lesion again, whatever their ids say.

A copy may be mirrored, turned by 90 degrees, re-encoded, resized, cropped or shifted a little, or
differ in brightness. Three looks, each strict on what the one before lets through:

1. alike as a whole: the low-frequency DCT coefficients (those of the perceptual hash, as numbers
   instead of bits) of brightness, two colours and the gradient's strength and direction. Mirroring
   changes their signs and turning swaps them, so that all pairs are compared in all eight
   orientations by matrix products;
2. alike in fine structure after the best shift (cross-correlation, 40 px);
3. the same fine structure, pixel by pixel, after registration with an affine map (enhanced
   correlation coefficient, Evangelidis & Psarakis 2008, doi:10.1109/TPAMI.2008.113, 96 px).

Fine structure is what is left of the brightness after its local mean and contrast are divided out:
hairs, pores, freckles, ridges of a network. Two lesions may look alike as blobs; their fine
structure does not match. `python -m benchmarks.duplicates` measures what is found.
"""

import io
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from scipy import fft
from threadpoolctl import threadpool_limits

from runtime import progress
from runtime.errors import UserError
from runtime.files import read_json, write_bytes, write_json

WHOLE, COARSE, FINE = 64, 40, 96  # px at the three looks
ALIKE, SHIFTED, REGISTERED = 0.78, 0.35, 0.70  # least correlation at the three looks
BEST = 64  # candidates that an image may have after the first look
WAVES = 6  # frequencies a side, 0 to 5 half-waves over the image
WEIGHTS = (1.0, 0.5, 0.5, 1.5, 1.5, 1.5)  # of brightness, two colours, gradient (3)
NOTHING = (16.0, 0.5, 0.5, 1.0, 1.0, 1.0)  # lengths that noise alone may have, same order
OVERLAP = 0.7  # least share of the image that registration may leave in common
ROWS, COLUMNS = 512, 2048  # images compared at a time; ROWS are done again after a kill
REACH = COARSE // 8  # px, largest shift at the second look


def _wave_tables() -> tuple[np.ndarray, np.ndarray]:
    """DCT basis [waves, px]; weights of the kept frequencies [waves, waves]; 0 is not kept."""
    wave, place = np.arange(WAVES)[:, None], np.arange(WHOLE)[None] + 0.5
    basis = np.cos(np.pi * wave * place / WHOLE) * np.sqrt(2 / WHOLE)
    length = np.hypot(wave, wave.T)
    fall = length**0.75 * np.exp(-((length / (WAVES - 1)) ** 2)) * (length < WAVES - 0.99)
    return basis.astype(np.float32), fall.astype(np.float32)


def _orientation_tables(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the eight orientations do to `_waves`: waves[order[k]] * sign[k]; both [8, d]."""
    index = np.arange(len(WEIGHTS) * kept.size).reshape(-1, *kept.shape)
    mirror, turn = np.ones((2, len(WEIGHTS), 1, 1))
    mirror[-1] = -1  # of the gradient's doubled angle: the sine
    turn[-2] = -1  # the cosine
    parity = (-1.0) ** np.arange(len(kept))
    orders, signs = [], []
    for k in range(8):
        order, sign = index, np.ones(index.shape)
        if k & 4:
            order, sign = order.swapaxes(1, 2), sign * turn
        if k & 1:
            sign = sign * mirror * parity[:, None]
        if k & 2:
            sign = sign * mirror * parity
        orders.append(order[:, kept].ravel())
        signs.append(sign[:, kept].ravel())
    place = np.full(index.size, -1)
    place[orders[0]] = np.arange(len(orders[0]))
    return place[np.array(orders)], np.array(signs, np.float32)


BASIS, FALL = _wave_tables()
ORDER, SIGN = _orientation_tables(FALL > 0)


class Candidates(NamedTuple):
    """Pairs that may match if the first is seen in an orientation; all [m]."""

    row: np.ndarray
    column: np.ndarray  # > row
    orientation: np.ndarray  # 0..7
    score: np.ndarray  # of the latest look

    def where(self, keep: np.ndarray) -> "Candidates":
        return Candidates(*(values[keep] for values in self))


class Looks(NamedTuple):
    """What the first two looks compare, a row an image; memory maps."""

    waves: np.ndarray  # float32 [n, 150], of length 1, less where little varies
    fine: np.ndarray  # int8 [n, 40, 40]


def near_duplicates(images: np.ndarray, scratch: Path | None = None) -> np.ndarray:
    """Row pairs (int64 [m, 2], i < j, sorted) of uint8 [n, size, size, 3] that match.

    `images` may be a memory map. What is found meanwhile (2.2 kB an image) lies in a temporary
    folder, or in the folder `scratch`: there a second call with the same images goes on after a
    kill. Of one image's look-alikes further down, only the `BEST` best are looked at closely: of a
    crowd of copies not every pair is found, but every copy is in a pair.
    """
    if len(images) < 2:
        return np.zeros((0, 2), np.int64)
    starts = range(0, len(images), ROWS)
    with (
        _folder(images, scratch) as folder,
        threadpool_limits(1, "blas"),  # each thread does its own products
        ThreadPoolExecutor(_cores()) as pool,
    ):
        looks = _look_at_all(images, folder, pool)
        files = {start: folder / f"pairs-{start:09}.npy" for start in starts}
        rest = [start for start in starts if not files[start].exists()]
        total = sum(len(images) - start for start in rest)
        with progress.bar(total, "comparing", "image") as bar:
            for start, pairs in zip(
                rest, pool.map(partial(_compare, images, looks), rest), strict=True
            ):
                write_bytes(files[start], _npy(pairs))
                bar.update(len(images) - start)
        del looks  # close the maps before their folder goes
        return np.concatenate([np.load(file, allow_pickle=False) for file in files.values()])


def identical_pairs(sha256: np.ndarray) -> np.ndarray:
    """Row pairs (int64 [m, 2]) of equal hashes; of k equal rows the first with each other one."""
    _, first, value = np.unique(sha256, return_index=True, return_inverse=True)
    rows = np.arange(len(sha256))
    pairs = np.column_stack([first[value], rows])
    return pairs[pairs[:, 0] != rows]


# ------------------------------------------------------------------------------ what is compared


def _look_at_all(images: np.ndarray, folder: Path, pool: ThreadPoolExecutor) -> Looks:
    """The looks of all images; those that `folder` holds already are not done again."""
    count = len(images)
    looks = Looks(
        _array(folder / "waves.npy", np.float32, (count, ORDER.shape[1])),
        _array(folder / "fine.npy", np.int8, (count, COARSE, COARSE)),
    )

    def look(start: int) -> int:
        part = images[start : start + ROWS]
        looks.waves[start : start + ROWS] = np.stack([_waves(image) for image in part])
        looks.fine[start : start + ROWS] = np.stack([_quantised(image) for image in part])
        return start

    starts = range(0, count, ROWS)
    rest = [start for start in starts if not (folder / f"looked-{start:09}").exists()]
    with progress.bar(len(rest) * ROWS, "looking", "image") as bar:
        for start in pool.map(look, rest):
            looks.waves.flush()
            looks.fine.flush()
            (folder / f"looked-{start:09}").touch()
            bar.update(ROWS)
    return looks


def _waves(image: np.ndarray) -> np.ndarray:
    """float32 [d]: low-frequency DCT coefficients of six channels, of weighted unit lengths."""
    small = cv2.resize(image, (WHOLE, WHOLE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    logs = cv2.log(small.astype(np.float32) + 8)  # 8 of 255: black has no colour
    along, down = (cv2.Sobel(grey, cv2.CV_32F, *axis, ksize=3) for axis in ((1, 0), (0, 1)))
    power = along * along + down * down
    strength = np.sqrt(power) + 1e-3
    local = np.sqrt(cv2.GaussianBlur(power, (0, 0), WHOLE / 8) + 10)  # 10: JPEG's own
    channels = np.stack(
        [
            grey,
            logs[..., 0] - logs[..., 1],
            logs[..., 2] - logs[..., 1],
            strength / local,
            (along * along - down * down) / (strength * local),  # the gradient's angle, doubled:
            2 * along * down / (strength * local),  # cosine and sine
        ]
    )
    parts = ((BASIS @ channels @ BASIS.T) * FALL)[:, FALL > 0]
    lengths = np.sqrt((parts**2).sum(1) + np.square(NOTHING))
    weights = np.sqrt(np.array(WEIGHTS) / sum(WEIGHTS))
    return (parts * (weights / lengths)[:, None]).ravel().astype(np.float32)


def _quantised(image: np.ndarray) -> np.ndarray:
    """int8 [40, 40]: fine structure; a unit is 1/32 of what it mostly is."""
    fine = _fine_structure(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), COARSE)
    return np.clip(np.rint(fine * 32), -127, 127).astype(np.int8)


def _fine_structure(grey: np.ndarray, size: int) -> np.ndarray:
    """float32 [size, size]: brightness with its local mean and contrast divided out."""
    small = cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    detail = small - cv2.GaussianBlur(small, (0, 0), size / 32)
    contrast = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), size / 12))
    return detail / (contrast + 2)  # 2 of 255: what sensors and JPEG add by themselves


def oriented(image: np.ndarray, orientation: int) -> np.ndarray:
    """A view of an image [side, side, ...] in orientation 0..7: transposed (4), mirrored (1, 2)."""
    turned = image.swapaxes(0, 1) if orientation & 4 else image
    return turned[:: -1 if orientation & 1 else 1, :: -1 if orientation & 2 else 1]


# ------------------------------------------------------------------------------------- the looks


def _compare(images: np.ndarray, looks: Looks, start: int) -> np.ndarray:
    """Pairs [m, 2] that pass all looks, sorted, whose first row is in `start`..`start + ROWS`."""
    found, shifts = _shifted(_alike(looks.waves, start), looks.fine, start)
    order = np.lexsort((-found.score, found.column, found.row))
    found, shifts = found.where(order), shifts[order]
    pairs = np.column_stack([found.row, found.column])
    first = np.append(True, (pairs[1:] != pairs[:-1]).any(1))[: len(pairs)]
    found, shifts, pairs = found.where(first), shifts[first], pairs[first]  # one orientation each
    keep = np.zeros(len(pairs), bool)
    for at, ((row, column), orientation) in enumerate(zip(pairs, found.orientation, strict=True)):
        one = oriented(images[row], orientation)
        keep[at] = _registered(one, images[column], shifts[at]) >= REGISTERED
    return pairs[keep].astype(np.int64)


def _alike(waves: np.ndarray, start: int) -> Candidates:
    """What passes the first look, at most `BEST` an image."""
    rows = np.asarray(waves[start : start + ROWS])
    turned = rows[:, ORDER].swapaxes(0, 1) * SIGN[:, None]
    level = np.full(len(rows), ALIKE, np.float32)  # grows where an image has too many
    found: list[Candidates] = []
    held = 0
    for left in range(start, len(waves), COLUMNS):
        columns = np.asarray(waves[left : left + COLUMNS]).T
        for orientation, queries in enumerate(turned):
            scores = queries @ columns
            row, column = np.nonzero(scores > level[:, None])
            score = scores[row, column]
            row, column = (row + start).astype(np.int32), (column + left).astype(np.int32)
            new = Candidates(row, column, np.full(len(row), orientation, np.int8), score)
            found.append(new.where(row < column))
            held += len(found[-1].row)
        if held > 8 * BEST * ROWS:
            found, level = _best(found, start, level)
            held = len(found[0].row)
    return _best(found, start, level)[0][0]


def _best(
    found: list[Candidates], start: int, level: np.ndarray
) -> tuple[list[Candidates], np.ndarray]:
    """The `BEST` of each row, and the score that others must exceed."""
    whole = Candidates(*(np.concatenate(values) for values in zip(*found, strict=True)))
    whole = whole.where(np.lexsort((-whole.score, whole.row)))
    rank = np.arange(len(whole.row)) - np.searchsorted(whole.row, whole.row)
    last = whole.where(rank == BEST - 1)
    level = level.copy()
    level[last.row - start] = last.score
    return [whole.where(rank < BEST)], level


def _shifted(candidates: Candidates, fine: np.ndarray, start: int) -> tuple[Candidates, np.ndarray]:
    """What passes the second look; with the shifts (int [m, 2]: y, x; px) that fit best."""
    block = np.asarray(fine[start : start + ROWS])
    turned = np.stack([oriented(np.moveaxis(block, 0, -1), k) for k in range(8)])
    spectra = fft.rfft2(_unit(np.moveaxis(turned, -1, 1)))
    candidates = candidates.where(np.argsort(candidates.column, kind="stable"))
    scores = np.zeros(len(candidates.row), np.float32)
    shifts = np.zeros((len(scores), 2), np.int64)
    side = 2 * REACH + 1
    for at in range(0, len(scores), ROWS):
        part = slice(at, at + ROWS)
        one = spectra[candidates.orientation[part], candidates.row[part] - start]
        product = one * fft.rfft2(_unit(fine[candidates.column[part]])).conj()
        match = fft.irfft2(product, s=(COARSE, COARSE), overwrite_x=True)
        near = np.roll(match, (REACH, REACH), (1, 2))[:, :side, :side].reshape(-1, side * side)
        scores[part] = near.max(1)
        shifts[part] = np.column_stack(np.divmod(near.argmax(1), side)) - REACH
    keep = scores > SHIFTED
    return candidates._replace(score=scores).where(keep), shifts[keep]


def _registered(one: np.ndarray, other: np.ndarray, shift: np.ndarray) -> float:
    """Correlation of two images' fine structure after the best affine map; -1 where none is."""
    moving, fixed = (
        _fine_structure(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), FINE)
        for image in (one, other)
    )
    affine = np.eye(2, 3, dtype=np.float32)
    affine[:, 2] = shift[::-1] * (FINE / COARSE)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4)
    try:
        _, affine = cv2.findTransformECC(fixed, moving, affine, cv2.MOTION_AFFINE, stop, None, 3)
    except cv2.error:  # does not converge: nothing in common
        return -1.0
    back = cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(moving, affine, (FINE, FINE), flags=cv2.INTER_LINEAR | back)
    whole = np.ones((FINE, FINE), np.uint8)
    common = cv2.warpAffine(whole, affine, (FINE, FINE), flags=cv2.INTER_NEAREST | back) > 0
    if common.mean() < OVERLAP:
        return -1.0
    return float(_unit(fixed[common][None, None])[0, 0] @ _unit(moved[common][None, None])[0, 0])


def _unit(values: np.ndarray) -> np.ndarray:
    """float32 [..., h, w], each centred, of length 1; all zeros where nothing varies."""
    centred = values - values.mean((-2, -1), dtype=np.float32, keepdims=True)
    length = np.linalg.norm(centred, axis=(-2, -1), keepdims=True)
    return centred * (length > 1e-3) / np.maximum(length, 1e-3)


# --------------------------------------------------------------------------------------- scratch


@contextmanager
def _folder(images: np.ndarray, scratch: Path | None) -> Iterator[Path]:
    """Where the work lies: what an earlier call left there, if it was about the same images."""
    if scratch is None:
        with tempfile.TemporaryDirectory(prefix="duplicates-") as name:
            yield Path(name)
        return
    folder, state = scratch / "duplicates", _state(images)
    try:
        same = read_json(folder / "state.json") == state
    except UserError:
        same = False
    if not same:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(folder / "state.json", state)
    yield folder


def _state(images: np.ndarray) -> dict[str, Any]:
    """What must be the same for work to go on: settings and images (by a sample of them)."""
    sample = images[np.linspace(0, len(images) - 1, 64).astype(int)]
    settings = (WHOLE, COARSE, FINE, ALIKE, SHIFTED, REGISTERED, BEST, WAVES, *WEIGHTS)
    return {
        "settings": [*settings, *NOTHING, OVERLAP, ROWS],
        "shape": list(images.shape),
        "sample": zlib.crc32(np.ascontiguousarray(sample)),
    }


def _array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """A memory map, opened as it is or made."""
    mode = "r+" if path.exists() else "w+"
    return np.lib.format.open_memmap(path, mode, dtype, shape)


def _npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
