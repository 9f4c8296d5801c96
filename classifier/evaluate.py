"""Everything that a sceptical reviewer asks of a finished classifier run, on one page.

    python -m classifier.evaluate --run runs/cls/NAME      writes runs/cls/NAME/evaluation

Reads the run's predictions and its datasets; trains nothing. Thresholds and temperature come from
the validation part alone. Writes evaluation.json, evaluation.html (one file) and PNG plots.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from dermsynth import cli
from dermsynth.cli import Repeatable
from dermsynth.options import HOLDS_PATH, Between, Seed, TrackingMode, check_bounds

MARKER = "evaluation.json"
# below the least a 95% interval hangs on a handful of resamples
Replicates = Annotated[int, Between(200, 1_000_000)]


# --out has a default of its own, beside what is evaluated, so that it is no OutputOptions
@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `python -m classifier.evaluate`."""

    run: Path  # run folder of classifier.train
    data: Path | None = None  # where its dataset is now; none: where it was
    external: Annotated[Repeatable, HOLDS_PATH] = ()  # NAME=FOLDER: where a test set is now
    out: Path | None = None  # folder to write; none: RUN/evaluation
    replicates: Replicates = 2000  # resamples of groups behind each interval
    seed: Seed = 0  # of the resamples
    overwrite: bool = False  # replace an evaluation that --out holds
    tracking: TrackingMode = "auto"  # W&B where a key is configured, else offline


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Write the evaluation's folder; returns what evaluation.json holds.

    Raises UserError for a run that is not finished, damaged predictions, and a folder that is
    taken. Datasets that are missing or are others than those of the run, and missing images or
    weights, cost their sections, and the page says why.
    """
    # imported here: --help does not wait for torch
    from classifier.evaluation import error_gallery, page
    from classifier.evaluation.comparison import run_likeness
    from classifier.evaluation.intervals import Resampling
    from classifier.evaluation.likeness import described
    from classifier.evaluation.parts import named_externals, read_run
    from classifier.evaluation.summary import summarise
    from classifier.evaluation.tracked import track_evaluation
    from classifier.run_folder import EVALUATION, METADATA, RUNS, open_run, read_meaning
    from classifier.tta import view_count
    from data.store import TargetMeaning
    from dermsynth.files import write_json, write_text
    from dermsynth.folders import check_replaceable, whole_folder
    from dermsynth.manifest import digest, seal
    from dermsynth.options import as_plain
    from dermsynth.progress import waiting

    check_bounds(options)
    sealed = open_run(options.run, RUNS)
    out = options.out or options.run / "evaluation"
    check_replaceable(out, EVALUATION, options.overwrite)
    places = named_externals(sealed, options.external)
    parts, leaky = read_run(sealed, options.data, places)
    own = next(iter(parts.values())).meaning  # of the run's dataset
    meaning = read_meaning(sealed) or own or TargetMeaning()
    config = sealed.manifest.options
    with whole_folder(out, EVALUATION, options.overwrite) as folder:
        summary = summarise(parts, Resampling(options.replicates, options.seed), meaning)
        shown = parts["test"] if "test" in parts else next(iter(parts.values()))
        views = view_count(config.get("tta", 1))
        with waiting("drawing the most wrong images, with heat maps"):
            gallery = error_gallery.draw_gallery(sealed, shown, views, folder, meaning)
        target = {"one": meaning.one, "zero": meaning.zero}
        result = {"run": str(options.run), "leaky": leaky, "target": target, **summary}
        result["gallery"] = gallery.facts
        result["likeness"] = described(*run_likeness(sealed))
        drawn = page.draw_plots(parts, result, folder)
        html = page.render(sealed, result, gallery, drawn)
        write_text(folder / "evaluation.html", html)
        write_json(folder / MARKER, result)
        figures = {"figures": digest(result | {"run": ""})}
        seal(folder, EVALUATION, figures, {"run": sealed.as_input}, as_plain(options))
    track_evaluation(options, out, sealed, parts, result, meaning)
    print(page.screen_table(result))
    print(f"{out / 'evaluation.html'}, {out / MARKER}")
    way_on = f"predict --run {options.run} --data FOLDER --out scores.csv"
    if sealed.manifest.kind == METADATA:
        way_on = f"blend --scores image=RUN meta={options.run} --out both.csv"
    cli.say_next(f"python -m classifier.{way_on}")
    return result


if __name__ == "__main__":
    cli.run(EvaluateOptions, evaluate, "classifier.evaluate", __doc__)
