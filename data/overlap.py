"""Which images of an external test set show a photograph, lesion or patient of a dataset again.

Whatever part of the dataset it is, the image is no fresh one: the training part was learnt, the
validation part chose the checkpoint, and the test part's patients would be counted twice.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from data.preparation import duplicates, likeness
from data.sources import OWN_IDS, READERS
from data.store import NATIVE_SIZE, NO_PART, Dataset, ImageStore
from dermsynth.machine import cores

IDS = ("image_id", "lesion_id", "patient_id")
SAME_FILE, NEAR, GROUP = "same file", "near-duplicate", "group of such an image"
REASONS = (SAME_FILE, *(f"same {name}" for name in IDS), NEAR, GROUP)  # the first one counts
SHARED = frozenset(READERS) - OWN_IDS  # sources whose ids mean the same in each other's tables
RADIUS, CLOSEST = 10, 64  # bits of 64, and images at most, in which a candidate's hash may differ
ROWS = 128  # images looked at, or hashes compared, at a time


@dataclass(frozen=True)
class Overlap:
    """What an external set and a dataset have in common, and what could not be compared."""

    found: pd.DataFrame  # row (of the external table), reason, other (row of the dataset); by row
    equal_ids: int  # further external images with an id that is equal, but not of one namespace
    no_hash: int  # further external images without a perceptual hash: no near-duplicate was sought
    no_hash_own: int  # images of the dataset without one


def overlap(dataset: Dataset, external: Dataset) -> Overlap:
    """Compare every image of `external` with every image of `dataset`, in whatever part.

    An image is named once, by the first of REASONS that holds:

    - the same file (SHA-256);
    - the same image, lesion or patient id, where both images come from public archives (SHARED).
      Ids of OWN_IDS and of the phantom mean something within their own source only, as in
      data.preparation.join; where such ids are equal, `equal_ids` counts them;
    - a near-duplicate: the perceptual hashes of the tables differ in at most RADIUS bits in one of
      eight orientations (the CLOSEST are taken), and data.preparation.duplicates finds the pair as
      it does within a dataset. Only images of such pairs are read. Copies that are cropped or
      shifted by much are missed (docs/guides/data.md says how many);
    - it is in one group of the external set with an image that was found.

    The result does not depend on the folds of the dataset. Raises UserError for a damaged image.
    """
    other = _same_files(dataset.table, external.table)
    reason = np.where(other >= 0, SAME_FILE, "").astype(object)

    def note(partner: np.ndarray, why: str) -> None:
        new = (other < 0) & (partner >= 0)
        other[new], reason[new] = partner[new], why

    for column in IDS:
        note(_same_ids(dataset.table, external.table, column), f"same {column}")
    rest = np.flatnonzero(other < 0)
    own, theirs = _hashes(dataset.table), _hashes(external.table.iloc[rest])
    pairs = _near_hashes(theirs, own)
    pairs[:, 0] = rest[pairs[:, 0]]
    near = np.full(len(other), -1)
    for row, partner in _confirmed(dataset, external, pairs)[::-1]:
        near[row] = partner
    note(near, NEAR)
    note(_through_groups(external.table["group"].to_numpy(), other), GROUP)
    rows = np.flatnonzero(other >= 0)
    left = other < 0
    found = pd.DataFrame({"row": rows, "reason": reason[rows].astype(str), "other": other[rows]})
    return Overlap(
        found,
        equal_ids=int((left & _equal_ids(dataset.table, external.table)).sum()),
        no_hash=int((left[rest] & ~theirs.known).sum()),
        no_hash_own=int((~own.known).sum()),
    )


# --------------------------------------------------------------------------------- files and ids


def _same_files(own: pd.DataFrame, theirs: pd.DataFrame) -> np.ndarray:
    """Row of `own` with the same SHA-256, int64 [n]; -1: none."""
    return _partners(own, own["sha256"], theirs["sha256"])


def _same_ids(own: pd.DataFrame, theirs: pd.DataFrame, column: str) -> np.ndarray:
    """As `_same_files`, of an id, where both have it from an archive."""
    names = [table[column].where(table["source"].isin(SHARED)) for table in (own, theirs)]
    return _partners(own, *names)


def _partners(own: pd.DataFrame, values: pd.Series, wanted: pd.Series) -> np.ndarray:
    """Row of `own` with each wanted value, one that is in a part if there is one; -1: none."""
    order = np.argsort((own["fold"] == NO_PART).to_numpy(), kind="stable")
    known = _words(values).to_numpy(object)[order]
    first = pd.Series(order, index=known)[pd.notna(known)]
    first = first[~first.index.duplicated()]
    return first.reindex(_words(wanted)).fillna(-1).to_numpy(np.int64, copy=True)


def _words(values: pd.Series) -> pd.Series:
    """As objects, None where there is no value."""
    words = values.astype(object)
    return words.where(words.notna() & (words != ""), None)


def _equal_ids(own: pd.DataFrame, theirs: pd.DataFrame) -> np.ndarray:
    """bool [n]: some id is equal, whatever namespace; ids of the phantom mean nothing elsewhere."""
    equal = np.zeros(len(theirs), bool)
    for column in IDS:
        names = [_words(_plain(table, column)) for table in (own, theirs)]
        equal |= (names[1].isin(set(names[0].dropna())) & names[1].notna()).to_numpy()
    return equal


def _plain(table: pd.DataFrame, column: str) -> pd.Series:
    """Ids without the name of the source that data.preparation.join puts in front."""
    names = table[column].where(table["source"] != "phantom").astype(object)
    fronts = tuple(f"{source}-" for source in OWN_IDS)

    def bare(name: object) -> str | None:
        if not isinstance(name, str):
            return None
        return next((name.removeprefix(f) for f in fronts if name.startswith(f)), name)

    return names.map(bare)


def _through_groups(group: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of each external image the partner of the first image in its group that has one, or -1."""
    found = np.flatnonzero(other >= 0)
    first = pd.Series(other[found], index=group[found])
    first = first[~first.index.duplicated()]
    return first.reindex(group).fillna(-1).to_numpy(np.int64)


# ------------------------------------------------------------------------------- near-duplicates


@dataclass(frozen=True)
class _Hashes:
    """Perceptual hashes of a table."""

    known: np.ndarray  # bool [n]
    bits: np.ndarray  # uint8 [n, 8, 8]: whether a frequency (down, along) is above the median


def _hashes(table: pd.DataFrame) -> _Hashes:
    words = table["phash"].astype(object).fillna("").astype(str)
    known = words.str.fullmatch("[0-9a-f]{16}").to_numpy(bool)
    content = bytes.fromhex("".join(words.where(known, "0" * 16)))
    bits = np.unpackbits(np.frombuffer(content, np.uint8)).reshape(-1, 8, 8)
    return _Hashes(known, bits)


def _near_hashes(theirs: _Hashes, own: _Hashes) -> np.ndarray:
    """Pairs (their row, own row), int64 [m, 2], whose hashes are near in some orientation.

    Mirroring an image changes the sign of its odd frequencies, so it turns their bits over, but for
    a few whose size is near the median.
    """
    rows, columns = np.flatnonzero(theirs.known), np.flatnonzero(own.known)
    codes, views = _codes(own.bits[columns]), []
    for orientation in range(8):
        bits = theirs.bits[rows]
        bits = (bits.swapaxes(1, 2) if orientation & 4 else bits).copy()
        bits[:, 1::2] ^= orientation & 1
        bits[:, :, 1::2] ^= orientation >> 1 & 1
        views.append(_codes(bits))
    pairs = [np.empty((0, 2), np.int64)]
    for start in range(0, len(rows), ROWS):
        distance = np.full((len(rows[start : start + ROWS]), len(columns)), 64, np.uint8)
        for view in views:
            apart = np.bitwise_count(view[start : start + ROWS, None] ^ codes)
            np.minimum(distance, apart, out=distance)
        if len(columns) > CLOSEST:
            far = np.argpartition(distance, CLOSEST, axis=1)[:, CLOSEST:]
            np.put_along_axis(distance, far, 64, axis=1)
        at, column = np.nonzero(distance <= RADIUS)
        pairs.append(np.column_stack([rows[at + start], columns[column]]))
    return np.concatenate(pairs)


def _codes(bits: np.ndarray) -> np.ndarray:
    """uint64 [n] of bits [n, 8, 8]."""
    return np.packbits(bits.reshape(-1, 64), axis=1).view(np.uint64).ravel()


def _confirmed(dataset: Dataset, external: Dataset, pairs: np.ndarray) -> np.ndarray:
    """The pairs (external row, own row) that are near-duplicates, sorted: duplicates' stages."""
    kept = _alike(dataset, external, pairs)
    if not len(kept.row):
        return np.empty((0, 2), np.int64)
    theirs, row = np.unique(kept.row, return_inverse=True)
    own, column = np.unique(kept.column, return_inverse=True)
    kept = kept._replace(row=row, column=column + len(theirs))
    images = np.concatenate([_small(external.images, theirs), _small(dataset.images, own)])
    fine = np.stack([likeness.quantised(image) for image in images])

    def register(start: int) -> list[tuple[int, int]]:
        block = kept.where((kept.row >= start) & (kept.row < start + duplicates.ROWS))
        shifted, maps = duplicates.shifted(block, images, fine, start)
        same = shifted.where(duplicates.registered(shifted, maps, images))
        return list(zip(theirs[same.row], own[same.column - len(theirs)], strict=True))

    starts = range(0, len(theirs), duplicates.ROWS)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as executor:
        found = [pair for some in executor.map(register, starts) for pair in some]
    return np.unique(np.array(found, np.int64).reshape(-1, 2), axis=0)


def _alike(dataset: Dataset, external: Dataset, pairs: np.ndarray) -> duplicates.Candidates:
    """The pairs that are alike as a whole, once for each such orientation."""
    theirs, row = np.unique(pairs[:, 0], return_inverse=True)
    own, column = np.unique(pairs[:, 1], return_inverse=True)
    one, other = _waves(external.images, theirs), _waves(dataset.images, own)
    score = np.stack(
        [
            np.einsum("ij,ij->i", likeness.reoriented(one, turn)[row], other[column])
            for turn in range(8)
        ]
    )
    turn, at = np.nonzero(score > duplicates.ALIKE)
    found = duplicates.Candidates(pairs[at, 0], pairs[at, 1], turn, score[turn, at])
    return found.where(np.lexsort((turn, found.column, found.row)))


def _waves(images: ImageStore, rows: np.ndarray) -> np.ndarray:
    """likeness.waves of some images, float32 [len(rows), d]."""

    def describe(start: int) -> np.ndarray:
        return np.stack([likeness.waves(image) for image in images[rows[start : start + ROWS]]])

    empty = np.empty((0, likeness.ORDER.shape[1]), np.float32)
    with ThreadPoolExecutor(cores()) as executor:
        return np.concatenate([empty, *executor.map(describe, range(0, len(rows), ROWS))])


def _small(images: ImageStore, rows: np.ndarray) -> np.ndarray:
    """Images of one size, uint8 [len(rows), 128, 128, 3]: two datasets may differ in theirs."""
    side = (NATIVE_SIZE, NATIVE_SIZE)
    small = np.empty((len(rows), *side, 3), np.uint8)
    for at, row in enumerate(rows.tolist()):
        small[at] = cv2.resize(np.asarray(images[row]), side, interpolation=cv2.INTER_AREA)
    return small
