"""The quality gate: a generator that is collapsed, barely trained or that copies is said so.

A verdict about images like these is one about a generator that does not work. Bounds lie between
what good and bad generators were measured to have: docs/guides/gan.md, "Quality".
"""

import numpy as np

from data.pool import Pool, is_malignant
from data.pool_quality import (
    FindingRecord,
    PixelRecord,
    QualityRecord,
    Severity,
    compare_pixels,
    finding,
    pixel_quality,
    quality,
    thumbnails,
)
from data.store import Dataset
from dermsynth.device import Compute
from dermsynth.records import Record
from gan.evaluation.audit import AuditRecord, audit_pool
from gan.evaluation.metrics import (
    COPIES,
    NEAR,
    Memorisation,
    memorisation,
    nearest_distances,
)
from gan.evaluation.records import EvaluationRecord, MemorisationRecord

UNTRAINED, SHORT = 1.0, 3.0  # thousand images seen
UNLIKE = 0.1  # coverage, precision or recall, of what real images reach
TOLD = 0.75  # AUC: half way between chance and certainty; its whole interval lies above
UNDEFINED = (
    "Whether they copy training images cannot be said: all are one image, whose neighbours are "
    "chance."
)


class PoolQualityRecord(Record):
    """What `pool_quality` found."""

    quality: QualityRecord
    pixels: PixelRecord | None  # None: too few images
    audit: AuditRecord | None  # None: images of another size than the real ones
    near_copies: float | None  # share of images; None where it cannot be said


def pool_quality(
    pool: Pool,
    dataset: Dataset,
    train_rows: np.ndarray,
    held_out_rows: np.ndarray,
    compute: Compute,
    seed: int = 0,
    count: int = 500,
) -> PoolQualityRecord:
    """What is wrong with a pool, whoever made it: half a minute of a core, no pretrained network.

    What gan.evaluate finds but for the feature networks: variety, sharpness, copies in pixels, how
    easily the images are told from real ones, how long the generator was trained. Real images of
    the pool's own class are compared, whichever rows are given.

    Parameters
    ----------
    pool : at least 10 images; the first `count` are looked at
    dataset : that the rows are of
    train_rows, held_out_rows : int64 [n], of images that its maker may have seen, and of others
    compute : where the small network is trained
    seed : of all choices
    """
    train, held_out = (_of_class(pool, dataset, rows) for rows in (train_rows, held_out_rows))
    images = np.asarray(pool.images[:count])
    known, unseen = (np.asarray(dataset.images[rows]) for rows in (train, held_out))
    groups = dataset.table["group"].to_numpy()[np.concatenate([train, held_out])]
    pixels, provenance = compare_pixels(images, known, seed), pool.info.provenance
    audit = near_copies = None
    not_checked = []
    if images.shape[1:] == known.shape[1:]:
        audit = audit_pool(images, known, unseen, groups, compute, seed, provenance)
    else:
        not_checked.append(
            f"How easily they are told from real images was not looked at: they have "
            f"{images.shape[1]} px, real ones {known.shape[1]} px."
        )
    findings = pixel_quality(pixels)
    if min(len(images), len(unseen)) < 2 or len(known) == 0:
        not_checked.append("Copies were not looked for: too few images.")
    elif not findings.found("collapsed", "fail"):
        near = _copies(images, known, unseen, groups, seed)
        near_copies = near.near_copies
        findings = _joined(findings, quality(_copying({"pixels": near}), []))
    else:
        not_checked.append(UNDEFINED)
    kimg = provenance.generator.kimg if provenance.generator else None
    others = quality([*_untrained(kimg), *_told(audit)], [*not_checked, *_missing(audit)])
    found = _joined(findings, others)
    return PoolQualityRecord(quality=found, pixels=pixels, audit=audit, near_copies=near_copies)


def gated(record: EvaluationRecord, kimg: float | None) -> EvaluationRecord:
    """The record of an evaluation with its `quality`.

    Whether a collapsed generator copies is undefined, unless near copies were found: its
    `memorisation` becomes None, and so does the flag. `kimg`: thousand images that the generator
    saw; None where that is not known.
    """
    pixels = pixel_quality(record.pixels)
    undefined = pixels.found("collapsed", "fail") and not record.memorisation_flagged
    findings = [
        *([] if pixels.found("collapsed", "fail") else _unlike(record)),
        *_untrained(kimg),
        *_copying(record.memorisation_in),
        *_told(record.audit),
    ]
    found = _joined(
        pixels, quality(findings, [*([UNDEFINED] if undefined else []), *_missing(record.audit)])
    )
    unsaid = {"memorisation": None, "memorisation_flagged": None} if undefined else {}
    return record.model_copy(update={"quality": found, **unsaid})


def _joined(one: QualityRecord, other: QualityRecord) -> QualityRecord:
    return quality([*one.findings, *other.findings], [*one.not_checked, *other.not_checked])


def _of_class(pool: Pool, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """Those rows whose target is that of the pool's images."""
    malignant = is_malignant(pool.info.provenance, dataset)
    return rows[dataset.targets(rows) == int(malignant)]


def _copies(
    images: np.ndarray, known: np.ndarray, unseen: np.ndarray, groups: np.ndarray, seed: int
) -> Memorisation:
    """By pictures of 16 x 16 px, turned and flipped."""
    real = np.concatenate([thumbnails(known)[0], thumbnails(unseen)[0]])
    ours, theirs = (nearest_distances(thumbnails(one), real)[0] for one in (images, unseen))
    return memorisation(ours, theirs, groups, len(known), seed)


# --- findings ------------------------------------------------------------------------------------


def _unlike(record: EvaluationRecord) -> list[FindingRecord]:
    """Images that lie apart from all real ones, or from most of them; the gravest alone."""
    looked_at: tuple[tuple[str, Severity, str], ...] = (
        ("coverage", "fail", "Unlike real images"),
        ("precision", "fail", "Unlike real images"),
        ("recall", "warning", "Most kinds of real images are not among them"),
    )
    for name, severity, words in looked_at:
        value, floor = getattr(record, name), getattr(record.floor, name)
        if value is not None and floor and value / floor < UNLIKE:
            kid = "" if record.kid is None else f"; KID x1000 is {1000 * record.kid:,.0f}"
            if kid and record.kid_floor is not None:
                kid += f", of real images {1000 * record.kid_floor:,.0f}"
            sentence = (
                f"{words}: {name} is {value:.2f}, where real images reach {floor:.2f} (bound "
                f"{UNLIKE} of that){kid}."
            )
            return [finding("unlike-real", severity, sentence, value / floor, UNLIKE)]
    return []


def _untrained(kimg: float | None) -> list[FindingRecord]:
    bounds: tuple[tuple[float, Severity], ...] = ((UNTRAINED, "fail"), (SHORT, "warning"))
    for bound, severity in bounds:
        if kimg is not None and kimg < bound:
            sentence = (
                f"Barely trained: {1000 * kimg:,.0f} images seen (bound {1000 * bound:,.0f})."
            )
            return [finding("barely-trained", severity, sentence, kimg, bound)]
    return []


def _copying(
    spaces: dict[str, Memorisation] | dict[str, MemorisationRecord],
) -> list[FindingRecord]:
    """By the first space, features or pixels, in which copies were found."""
    for space, one in spaces.items():
        if not one.flagged:
            continue
        value, bound, words = one.ratio, NEAR, "times the distance that chance would have"
        if (one.near_copies or 0) > COPIES:
            value, bound, words = one.near_copies, COPIES, "of them are near copies"
        sentence = (
            f"Copies of training images are among them: {value:.2f} {words} (in {space}; bound "
            f"{bound}); do not share or use them."
        )
        return [finding("copies", "fail", sentence, value or 0.0, bound)]
    return []


def _told(audit: AuditRecord | None) -> list[FindingRecord]:
    if audit is None or audit.synthetic.low is None or audit.synthetic.low <= TOLD:
        return []
    auc, low, high = audit.synthetic.auc, audit.synthetic.low, audit.synthetic.high
    sentence = (
        f"Easily told from real images: a small network does it with an AUC of {auc:.2f} [{low:.2f}"
        f", {high:.2f}] (blurred real images {audit.blurred.auc:.2f}, real against real "
        f"{audit.real.auc:.2f}; bound {TOLD}): a classifier may learn that in place of malignancy."
    )
    return [finding("easily-told", "warning", sentence, low, TOLD)]


def _missing(audit: AuditRecord | None) -> list[str]:
    if audit is None or audit.missing is None:
        return []
    return [f"How easily they are told from real images was not looked at: {audit.missing}."]
