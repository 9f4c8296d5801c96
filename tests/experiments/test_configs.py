"""Every experiment that is delivered runs from its file to its report."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from data.prepare import PrepareOptions, prepare
from dermsynth.options import replace
from experiments.config import CONFIGS
from experiments.options import ExperimentOptions
from experiments.run import run_experiment


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "phantom"
    options = replace(PrepareOptions(), patients=120, prevalence=0.35, size=64)
    prepare(replace(options, folds=4, out=out))
    prepare(replace(options, folds=3, test_fraction=0, out=out.with_name("rotated")))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_it_runs(phantom: Path, tmp_path: Path, name: str):
    text = (CONFIGS / f"{name}.yaml").read_text()
    rotated = not isinstance(yaml.safe_load(text).get("folds", 0), int)
    data = phantom.with_name("rotated") if rotated else phantom
    if "read_size" in text:
        data = native(phantom, tmp_path)
    options = ExperimentOptions(Path(name), data=data, smoke=True)
    run_experiment(replace(options, out=tmp_path / "out", device="cpu", tracking="none"))
    trials = pd.read_parquet(tmp_path / "out" / "trials.parquet")
    assert set(trials["status"]) == {"done"}
    assert "</html>" in (tmp_path / "out" / "report.html").read_text()


def native(phantom: Path, folder: Path) -> Path:
    """The phantom's images as files, prepared as they are."""
    from PIL import Image

    from data.store import load_dataset

    dataset = load_dataset(phantom)
    for row, (name, target) in enumerate(
        zip(*map(dataset.table.get, ("image_id", "target")), strict=True)
    ):
        place = folder / "raw" / ("mel" if target else "nv") / f"{name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.images[row]).resize((160, 160)).save(place)
    out = folder / "native"
    prepare(
        replace(PrepareOptions(), source="folder", root=(folder / "raw",), size="native", out=out)
    )
    return out
