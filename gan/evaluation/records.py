"""`evaluation.json` of a generator or a pool: what experiments and pages read of an evaluation.

It lies in a sealed folder of its own, `evaluation/`, in the run or the pool, beside the page
(`evaluation.html`) and the pictures that the page shows. A figure is None where it cannot be said.
"""

from pathlib import Path

from data.pool_quality import PixelRecord, QualityRecord
from dermsynth.errors import UserError
from dermsynth.manifest import Sealed, open_sealed, read_manifest
from dermsynth.records import Record
from gan.evaluation.audit import AuditRecord
from gan.evaluation.membership import MembershipRecord
from gan.evaluation.texture import TextureRecord
from gan.options import EvaluateOptions, LabelName

KIND, FOLDER, HEADER = "generator-evaluation", "evaluation", "evaluation.json"
FOLDER_BENIGN = "evaluation-benign"  # of a generator's benign images
PAGE, CLOSEST = "evaluation.html", "memorisation.png"
MEND = "evaluate again"

Figure = float | None


class SpreadRecord(Record):
    """How well the two sets of images cover each other (k = 5)."""

    precision: Figure
    recall: Figure
    density: Figure
    coverage: Figure


class MemorisationRecord(Record):
    """gan.evaluation.metrics.Memorisation."""

    ratio: Figure
    median_synthetic: Figure
    median_reference: Figure
    near_copies: Figure
    share_nearest_training: Figure
    share_expected: Figure
    p_permutation: Figure
    p_mann_whitney: Figure
    flagged: bool


class DriftRecord(Record):
    """gan.evaluation.drift.Drift, of one attribute."""

    mean_synthetic: Figure
    mean_training: Figure
    mean_held_out: Figure
    difference: Figure
    low: Figure
    high: Figure
    difference_real: Figure
    low_real: Figure
    high_real: Figure
    spread: Figure
    spread_low: Figure
    spread_high: Figure
    share_synthetic: Figure
    share_training: Figure
    verdict: str
    narrower: bool


class PairsRecord(Record):
    """Means over nearest pairs."""

    n: int
    psnr: Figure
    ssim: Figure
    ms_gmsd: Figure
    mdsi: Figure
    haarpsi: Figure


class DiagnosisRecord(Record):
    """What is known of the network that learned the diagnoses."""

    classes: list[str]
    n_training: int
    auc: Figure


class EvaluationRecord(Record):
    """`evaluation.json`."""

    # --- by `evaluation_network`, against the held-out images; KID in plain units
    kid: Figure
    kid_std: Figure
    kid_floor: Figure  # of as many training images: what a perfect generator would get
    kid_floor_std: Figure
    precision: Figure
    recall: Figure
    density: Figure
    coverage: Figure
    floor: SpreadRecord
    n_real: int  # held-out images
    n_synthetic: int
    evaluation_network: str

    # --- by the other network; None where it is not there
    kid_other: Figure
    kid_other_std: Figure
    kid_other_floor: Figure
    kid_other_floor_std: Figure
    evaluation_network_other: str | None

    # --- what else was looked at
    independent: bool | None  # the discriminator saw nothing akin; None: not known
    memorisation: Figure  # ratio in features: 1 chance, 0 copies; None: of one image repeated
    memorisation_flagged: bool | None
    memorisation_in: dict[str, MemorisationRecord]  # features, pixels
    drift: dict[str, DriftRecord]  # by attribute
    pairs: dict[str, PairsRecord]  # synthetic_to_training, synthetic_to_held_out, ...
    fid: Figure = None  # with --inception
    fid_floor: Figure = None
    diagnosis_network: DiagnosisRecord | None

    # --- what is wrong with it; None in evaluations of before
    pixels: PixelRecord | None = None  # against training images; None: too few
    audit: AuditRecord | None = None
    texture: TextureRecord | None = None
    membership: MembershipRecord | None = None
    quality: QualityRecord | None = None

    # --- of what
    label: LabelName = "malignant"  # all images, synthetic and real
    n_training: int
    dataset: str  # where it lay: a hint for people
    folds_hash: str
    fold: int
    seed: int


def place(options: EvaluateOptions) -> Path:
    """The folder that an evaluation is written to."""
    subject = options.generator or options.pool
    assert subject is not None
    benign = options.generator is not None and options.label == "benign"
    return options.out or subject / (FOLDER_BENIGN if benign else FOLDER)


def open_evaluation(subject: Path, folder: Path | None = None) -> Sealed:
    """The evaluation of a generator's run or a pool, as these are now; in it, or in `folder`.

    Raises UserError where there is none, it is damaged, or the run or pool is another by now.
    """
    folder = folder or subject / FOLDER
    absent = f"{subject}: not evaluated; do so with `python -m gan.evaluate`"
    sealed = open_sealed(folder, KIND, absent, MEND)
    of = sealed.manifest.inputs.get("subject")
    if of is None or of.id != read_manifest(subject, MEND).id:
        raise UserError(f"{folder}: is of another {of.kind if of else 'subject'}; {MEND}")
    return sealed


def read_evaluation(subject: Path, folder: Path | None = None) -> EvaluationRecord:
    """`evaluation.json` of a generator's run or a pool. Raises UserError as `open_evaluation`."""
    return open_evaluation(subject, folder).record(HEADER, EvaluationRecord)
