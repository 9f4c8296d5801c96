"""Experiment files: what is accepted, and one clear error for everything else."""

from pathlib import Path

import pytest

from dermsynth.errors import UserError
from dermsynth.options import flat
from experiments.config import Experiment, Split, all_trials, differences, read_experiment

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
    experiment, arms = read_experiment(write(tmp_path, GOOD))
    assert [arm.name for arm in arms] == ["real", "synthetic", "oracle"]
    assert {arm.options.model.frozen for arm in arms} == {3}
    assert [arm.options.training_set.synthetic for arm in arms] == ["0", "0.3", "balanced"]
    assert [arm.source and arm.source.pool for arm in arms] == [None, "gan", "oracle"]
    assert [arm.gan_seeds(experiment) for arm in arms] == [[None], [0, 1], [None]]
    assert arms[1].source.gan.budget.minutes == 1
    trials = all_trials(experiment, arms, [Split(1, 0), Split(2, 1)])
    assert len({trial.name for trial in trials}) == 2 * 5 * (1 + 2 + 1)


def test_external_sets_of_the_command_line_take_the_place_of_the_files(tmp_path: Path):
    text = GOOD.replace("frozen: 3}", "frozen: 3, external: [there=a]}")
    _, arms = read_experiment(write(tmp_path, text))
    assert {arm.options.training_set.external for arm in arms} == {("there=a",)}
    experiment, arms = read_experiment(tmp_path / "e.yaml", external=("here=b", "too=c"))
    assert {arm.options.training_set.external for arm in arms} == {("here=b", "too=c")}
    assert experiment.classifier["external"] == ["here=b", "too=c"]


@pytest.mark.parametrize(
    ("folds", "known", "expected"),
    [
        (1, [0, 1, 2], [(1, None)]),
        ("rotate", [0, 1, 2], [(1, 0), (2, 1), (0, 2)]),
        ([2, 0], [0, 1, 2], [(0, 2), (1, 0)]),
    ],
)
def test_splits(folds: object, known: list[int], expected: list[tuple]):
    experiment = Experiment(arms={}, comparisons=[], folds=folds)
    found = [(split.fold, split.test_fold) for split in experiment.splits(known)]
    assert found == expected


def test_what_arms_differ_in_is_told_by_the_thing(tmp_path: Path):
    text = GOOD.replace("oracle:", "strong: {augment: siim}\n  oracle:")
    _, (real, synthetic, strong, oracle) = read_experiment(write(tmp_path, text))
    (thing,) = differences(synthetic, real)
    assert "which images" in thing
    assert set(differences(synthetic, real)[thing]) == {
        "synthetic",
        *("pool", "gan", "truncation"),
    } | {"both_classes"}
    assert differences(strong, real) == {"how training images are varied": ["augment"]}
    assert len(differences(strong, synthetic)) == 2
    assert set(differences(oracle, synthetic)) == {thing}


def test_arms_that_differ_in_two_things_need_a_word(tmp_path: Path):
    text = GOOD.replace("oracle:", "strong: {augment: siim, synthetic: 0.3}\n  oracle:")
    text = text.replace("[synthetic, real]", "[strong, real]")
    with pytest.raises(UserError, match=r"more than one thing.*augment.*unequal: true"):
        read_experiment(write(tmp_path, text))
    experiment, _ = read_experiment(write(tmp_path, text + "unequal: true\n"))
    assert experiment.unequal


def test_generators_are_shared_by_arms_that_want_the_same(tmp_path: Path):
    text = GOOD.replace(
        "oracle:",
        "more: {synthetic: balanced}\n  other: {synthetic: 0.3, gan: {arch: projected}}\n"
        "  few: {malignant_share: 0.25, synthetic: 0.3}\n  oracle:",
    )
    _, arms = read_experiment(write(tmp_path, text))
    names = {arm.name: arm.source.name for arm in arms if arm.source and arm.source.gan}
    assert names["synthetic"] == names["more"] == "default"
    assert len({names[name] for name in ("synthetic", "other", "few")}) == 3
    few = next(arm for arm in arms if arm.name == "few")
    assert few.source.gan.images.malignant_share == 0.25


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
        (GOOD.replace("real: {}", "real: {pool: oracle}"), "pool without `synthetic`"),
        (GOOD.replace("pool: oracle}", "pool: oracle, gan: {arch: sngan}}"), "of `pool: gan` only"),
        (GOOD.replace("0.3}", "0.3, truncation: 2}"), "truncation: expected"),
        (GOOD.replace("0.3}", "0.3, both_classes: 1}"), "both_classes: expected true or false"),
        (GOOD.replace("0.3}", "0.3, gan: {seed: 2}}"), "seed is set by the runner"),
        (GOOD.replace("[[synthetic, real]]", "[[real, synthetic], [synthetic, real]]"), "one dir"),
        (GOOD + "folds: all", "folds: expected"),
        (GOOD + "folds: [0, 0]", "folds: expected"),
        ("arms: {a: {}, b: {}}\ncomparisons: [[a, b]]", "the same arm under two names"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, text: str, words: str):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=words) as error:
        read_experiment(path)
    assert str(path) in str(error.value)


def test_a_recipe_lies_under_what_the_file_says(tmp_path: Path):
    _, arms = read_experiment(write(tmp_path, GOOD + "recipe: b3-meta-cutmix"))
    for arm in arms:
        options = flat(arm.options)
        assert (options["head"], options["cutmix"], options["loss"]) == ("metadata", 0.3, "focal")
        assert (options["backbone"], options["frozen"]) == ("efficientnet-lite0", 3)
        assert options["fold"] == 0  # the recipe's `all` is the runner's to decide


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_are_valid_and_say_their_command(path: Path):
    experiment, arms = read_experiment(path)
    assert len(experiment.seeds) > 1
    assert any(arm.source for arm in arms) or path.stem == "frozen-blocks"
    assert "python -m experiments.run" in path.read_text() or "make demo" in path.read_text()


def test_defaults_are_the_documented_ones():
    experiment = Experiment(arms={}, comparisons=[])
    assert experiment.margin == 0.01
    assert (len(experiment.seeds), len(experiment.gan_seeds)) == (5, 3)
