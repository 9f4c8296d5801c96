"""What a pool, an evaluation and a look into a generator tell W&B or TensorBoard."""

from pathlib import Path
from typing import Any

from data.pool import load_pool
from data.provenance import GeneratorRecord
from dermsynth.manifest import Sealed, read_manifest
from dermsynth.options import TrackedOptions
from dermsynth.tracked import About, config_of
from dermsynth.tracking import Report, harmless, sheet
from gan.evaluation.records import CLOSEST, FOLDER, FOLDER_BENIGN, MEND, PAGE, place
from gan.options import EvaluateOptions

FIGURES = (
    *("kid", "kid_std", "kid_floor", "precision", "recall", "density", "coverage", "fid"),
    *("memorisation", "memorisation_flagged", "n_real", "n_synthetic", "n_training"),
)


@harmless
def track_pool(
    output: TrackedOptions, config: dict[str, Any], record: GeneratorRecord, generator: Sealed
) -> None:
    """A run of the finished pool in `output.out`: a sample of its images, and what made it.

    `config`: the options of gan.generate; `record`, `generator`: of the generator's run.
    """
    assert output.out is not None
    out = output.out
    made, run = load_pool(out), generator.path.absolute().name
    labels = {"generator": run, "fold": record.fold, "gan_seed": record.seed}
    inputs = {"generator": generator.identity}
    about = About("pool", config, f"pool-{run}", labels, None, inputs)
    with Report(out, output.tracking, about) as report:
        report.image(0, "samples", sheet(made.images))
        report.summary(images=len(made.images), size=record.size)
        report.made(made.identity, images=len(made.images), folder=str(out))


@harmless
def track_evaluation(options: EvaluateOptions, result: dict[str, Any]) -> None:
    """A run of the finished evaluation: its figures, its page and the closest pairs."""
    subject = options.generator or options.pool
    assert subject is not None
    out, name = place(options), subject.absolute().name
    inputs = read_manifest(out, MEND).inputs
    seen = {"label": result["label"], "fold": result["fold"]}
    labels = {"subject": name, **seen, "seed": options.seed}
    of = FOLDER_BENIGN if result["label"] == "benign" else FOLDER
    about = About("evaluate", config_of(options), f"{of}-{name}", labels, None, inputs)
    with Report(out, options.tracking, about) as report:
        quality = result.get("quality") or {}
        report.summary(**{key: result.get(key) for key in FIGURES})
        report.summary(evaluation_network=result["evaluation_network"])
        report.summary(faults=", ".join(one["code"] for one in quality.get("findings", [])))
        report.image(0, "closest", out / CLOSEST)
        report.page("evaluation", out / PAGE)
        report.made(read_manifest(out, MEND).identity, out / PAGE, folder=str(out))


@harmless
def track_exploration(options: Any, out: Path, generator: Sealed, distance: float | None) -> None:
    """A run of the finished exploration in `out`: its pictures, and how near the search came.

    `options`: ExploreOptions; `distance`: of the image that was searched for, where one was.
    """
    name = generator.path.absolute().name
    inputs = {"generator": generator.identity}
    labels = {"generator": name, "seed": options.seed}
    about = About("evaluate", config_of(options), f"exploration-{name}", labels, None, inputs)
    with Report(out, options.tracking, about) as report:
        for picture in sorted(out.glob("*.png")):
            report.image(0, picture.stem, picture)
        report.summary(distance=distance)
        report.made(read_manifest(out, MEND).identity, folder=str(out))
