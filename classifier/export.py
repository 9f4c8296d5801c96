"""A trained classifier as one ONNX file, for programs without torch.

Input `images` float32 [n, 3, size, size], RGB, 0 to 1, any n; of a run with `--head metadata` also
`columns` float32 [n, columns], age, sex and site as numbers. Output `malignant` float32 [n], the
probability; of a run with `--target diagnosis` also `classes` float32 [n, classes]. The file's
metadata say how images are to be cropped, how columns are made and what the run was worth.
"""

from dataclasses import dataclass
from pathlib import Path

from dermsynth import cli
from dermsynth.errors import UserError
from dermsynth.files import check_free
from dermsynth.options import TrackingMode, check_bounds

TOLERANCE = 1e-4  # of a probability, between onnxruntime and torch


# --out is a file and required, so that it is no OutputOptions
@dataclass(frozen=True)
class ExportOptions:
    """Options of `python -m classifier.export`."""

    run: Path  # run folder of classifier.train
    out: Path  # .onnx file to write
    overwrite: bool = False  # replace the file in --out
    tracking: TrackingMode = "auto"  # W&B where a key is configured, else offline


def export(options: ExportOptions) -> float:
    """Write the file; returns the largest difference from torch that was found, a probability.

    Raises UserError where onnx is not installed, the run is not finished or holds no network, the
    file exists already, or onnxruntime's answers differ from torch's by TOLERANCE: then no file.
    """
    # imported here: --help does not wait for torch
    from classifier import onnx_graph
    from classifier.evaluation.tracked import track_export
    from classifier.run_folder import KIND, RUNS, WEIGHTS, open_run
    from classifier.trained import load_trained
    from dermsynth.files import write_bytes

    check_bounds(options)
    onnxruntime = onnx_graph.load_onnxruntime()
    if options.out.suffix != ".onnx":
        raise UserError(f"--out {options.out}: expected a name that ends in .onnx")
    check_free(options.out, options.overwrite)
    sealed = open_run(options.run, RUNS)
    if sealed.manifest.kind != KIND:
        raise UserError(
            f"--run {options.run}: holds no {WEIGHTS}; give a run of one fold and one network by "
            "classifier.train, such as those in its folder"
        )
    trained = load_trained(sealed)
    spec = trained.model.spec
    graph = onnx_graph.to_onnx(trained)
    for key, value in onnx_graph.about(sealed, trained).items():
        graph.metadata_props.add(key=key, value=value)
    content = graph.SerializeToString()
    samples = onnx_graph.samples(sealed, trained)
    gap = onnx_graph.difference(onnxruntime, content, trained, samples)
    if not gap < TOLERANCE:  # so that NaN is refused, too
        raise UserError(
            f"--run {options.run}: onnxruntime and torch differ by {gap:.2g}, allowed are "
            f"{TOLERANCE:g}; nothing was written. Other versions of onnx, onnxscript or "
            "onnxruntime may mend it: pip install -c constraints.txt -e '.[onnx]'"
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(options.out, content)
    track_export(options, sealed, spec, gap)
    print(
        f"{spec.backbone}, {spec.size} px, {len(content) / 2**20:.1f} MiB; at most {gap:.1g} "
        f"from torch: {options.out}"
    )
    cli.say_next(f"python -m classifier.predict --run {options.run} --data FOLDER --out scores.csv")
    return gap


if __name__ == "__main__":
    cli.run(ExportOptions, export, "classifier.export", __doc__)
