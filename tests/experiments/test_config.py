"""Experiment files: what is accepted, and one clear error for everything else."""

from pathlib import Path

import pytest

from dermsynth.errors import UserError
from dermsynth.options import flat
from experiments.config import Experiment, Trial, read_experiment

GOOD = """
arms:
  real: {}
  synthetic: {synthetic: 0.3}
  oracle: {synthetic: balanced, pool: oracle}
comparisons: [[synthetic, real]]
gan_seeds: [0, 1]
gan: {minutes: 1}
classifier: {backbone: efficientnet-lite0, frozen: 3}
"""
CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"


def write(folder: Path, text: str) -> Path:
    (folder / "e.yaml").write_text(text)
    return folder / "e.yaml"


def test_arms_differ_in_what_they_say_and_share_the_rest(tmp_path: Path):
    experiment, arms, gan = read_experiment(write(tmp_path, GOOD))
    assert [arm.name for arm in arms] == ["real", "synthetic", "oracle"]
    assert {arm.options.model.frozen for arm in arms} == {3}
    assert [arm.options.training_set.synthetic for arm in arms] == ["0", "0.3", "balanced"]
    assert [arm.pool for arm in arms] == [None, "gan", "oracle"]
    assert [arm.gan_seeds(experiment) for arm in arms] == [[None], [0, 1], [None]]
    assert gan.budget.minutes == 1
    folders = {
        Trial(arm, seed, gan_seed).folder(tmp_path)
        for arm in arms
        for seed in experiment.seeds
        for gan_seed in arm.gan_seeds(experiment)
    }
    assert len(folders) == 3 * (1 + 2 + 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("arms: {a: {}, b: {}}", "comparisons: expected"),
        ("comparisons: [[a, b]]", "arms: expected"),
        ("arms: {a: {}}\ncomparisons: [[a, a]]", "two arms or more"),
        ("arms: {a: {}, b: 3}\ncomparisons: [[a, b]]", "arms: expected"),
        ("arms: {a: {}, b: {}}\ncomparisons: [[a, c]]", "no arm c"),
        ("arms: {a: {}, b: {}}\ncomparisons: [[a, b, a]]", "pairs"),
        (GOOD + "sedes: [1]", "unknown key sedes"),
        (GOOD + "seeds: 3", "seeds: expected"),
        (GOOD + "recipe: frozen81", "recipe frozen81: unknown; known: .*frozen18"),
        (GOOD + "seeds: [1, 1]", "seeds: expected"),
        (GOOD + "margin: 0", "margin: expected"),
        (GOOD + "bootstrap: 10", "bootstrap: expected"),
        (GOOD.replace("0.3}", "1.0}"), "synthetic 1.0: expected a share"),
        (GOOD.replace("frozen: 3", "frozzen: 3"), "unknown key frozzen"),
        (GOOD.replace("frozen: 3", "frozen: three"), "three"),
        (GOOD.replace("frozen: 3", "seed: 3"), "seed is set by the runner"),
        (GOOD.replace("minutes: 1", "mintes: 1"), "unknown key mintes"),
        (GOOD.replace("real: {}", "real: {fold: 2}"), "fold is set by the runner"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, text: str, words: str):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=words) as error:
        read_experiment(path)
    assert str(path) in str(error.value)


def test_a_recipe_lies_under_what_the_file_says(tmp_path: Path):
    _, arms, _ = read_experiment(write(tmp_path, GOOD + "recipe: b3-meta-cutmix"))
    for arm in arms:
        options = flat(arm.options)
        assert (options["head"], options["cutmix"], options["loss"]) == ("metadata", 0.3, "focal")
        assert (options["backbone"], options["frozen"]) == ("efficientnet-lite0", 3)
        assert options["fold"] == 0  # the recipe's `all` is the runner's to decide


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_are_valid_and_say_their_command(path: Path):
    experiment, arms, _ = read_experiment(path)
    assert len(experiment.seeds) > 1
    assert any(arm.pool for arm in arms)
    assert "python -m experiments.run" in path.read_text() or "make demo" in path.read_text()


def test_defaults_are_the_documented_ones():
    experiment = Experiment(arms={}, comparisons=[])
    assert experiment.margin == 0.01
