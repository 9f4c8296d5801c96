"""What an experiment file may say, and its check before anything is computed."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier.options import RECIPES, parse_share
from classifier.options import TrainOptions as ClassifierOptions
from dermsynth.cli import from_mapping, read_yaml
from dermsynth.errors import UserError, some
from dermsynth.names import check_name
from dermsynth.options import SEEDS, Between, flat
from gan.train import TrainOptions as GanOptions

CONFIGS = Path(__file__).parent / "configs"  # found by name from anywhere
SAMPLERS = ("oracle", "broken")  # pools drawn by the phantom's sampler instead of a generator
ROTATE = "rotate"
REPLICATES = Between(1000, 1_000_000)
OWNED = (
    *("data", "fold", "test_fold", "seed", "out", "resume", "overwrite", "device", "precision"),
    *("tracking", "generator", "benign_pool"),
)
SOURCE_KEYS = (
    "pool",
    "gan",
    "truncation",
    "both_classes",
)  # of an arm, beside options of classifier.train

# What belongs to one thing: arms may differ in all of it, and in nothing else, unless `unequal`.
THINGS = {
    "which images of each class are trained on, and how much they weigh": (
        *("synthetic", "oversample", "synthetic_only", *SOURCE_KEYS, "cap"),
        *("upsample", "sampler", "class_weights", "positive_weight", "miss_cost"),
    ),
    "how training images are varied": ("augment", "cutmix", "mixup", "mixstyle", "views"),
    "the network": (
        *("backbone", "weights", "frozen", "batch_norm", "head", "dropout", "metadata"),
        "beside",
    ),
    "the loss": ("loss", "gamma", "alpha", "label_smoothing"),
}


@dataclass(frozen=True)
class Experiment:
    """An experiment file. Arms differ in what they say here and share everything else."""

    arms: dict[str, dict[str, Any]]  # name -> options of classifier.train, and SOURCE_KEYS
    comparisons: list[list[str]]  # [arm, reference] pairs; the first is the primary one
    description: str = ""  # one sentence for the report
    folds: Any = 0  # a fold validated on, the test part tested; rotate, or a list: tested in turn
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])  # classifier seeds, all arms
    gan_seeds: list[int] = field(default_factory=lambda: [0, 1, 2])  # one generator each, and fold
    gan: dict[str, Any] = field(default_factory=dict)  # options of gan.train
    recipe: str = ""  # classifier/recipes/NAME.yaml, under the options of `classifier`
    classifier: dict[str, Any] = field(default_factory=dict)  # options of classifier.train
    margin: float = 0.01  # AUC; differences smaller than this count as none, fixed beforehand
    bootstrap: int = 4000  # replicates of the group bootstrap
    unequal: bool = False  # compare arms that differ in more than one thing
    smoke: bool = False  # --smoke: everything runs, nothing is learnt

    def splits(self, known: list[int]) -> list["Split"]:
        """What is tested and validated on, of a dataset with these folds, in order."""
        if isinstance(self.folds, int):
            return [Split(self.folds, None)]
        tested = known if self.folds == ROTATE else list(self.folds)
        after = dict(zip(known, known[1:] + known[:1], strict=True))
        return [Split(after[fold], fold) for fold in tested]


@dataclass(frozen=True)
class Split:
    """Validate on `fold`, test on `test_fold` (None: the test part), train on the rest."""

    fold: int
    test_fold: int | None

    @property
    def number(self) -> int:
        """By which results of this split are told apart: the fold tested on, if one is."""
        return self.fold if self.test_fold is None else self.test_fold


@dataclass(frozen=True)
class Source:
    """Where an arm's synthetic images come from. Arms with the same source share its pools."""

    pool: str  # "gan", a sampler's name, or a pool's folder
    name: str = ""  # of the generators, in names of folders
    gan: GanOptions | None = None  # of pool: gan; the runner sets data, fold, seed and out
    truncation: float = 1.0
    both_classes: bool = False  # benign images of the same generator, too


@dataclass(frozen=True)
class Arm:
    """One arm with its classifier options resolved but for data, folds, seed and pool."""

    name: str
    source: Source | None  # None: no synthetic images
    options: ClassifierOptions

    def gan_seeds(self, experiment: Experiment) -> list[int | None]:
        """The generator seeds that this arm is repeated over; [None] where it has none."""
        uses = self.source is not None and self.source.pool == "gan"
        return list(experiment.gan_seeds) if uses else [None]


@dataclass(frozen=True)
class Trial:
    """One training of a classifier: an arm, a split, a seed and, where it has one, a generator."""

    arm: Arm
    split: Split
    seed: int
    gan_seed: int | None

    @property
    def name(self) -> str:
        """Its folder in the experiment's."""
        generator = "" if self.gan_seed is None else f"-gan{self.gan_seed}"
        return f"trials/fold{self.split.number}/{self.arm.name}-seed{self.seed}{generator}"


def all_trials(experiment: Experiment, arms: list[Arm], splits: list[Split]) -> list[Trial]:
    """Every training, fold by fold and seed by seed, so that whole comparisons come early."""
    return [
        Trial(arm, split, seed, gan_seed)
        for split in splits
        for seed in experiment.seeds
        for arm in arms
        for gan_seed in arm.gan_seeds(experiment)
    ]


def splits_of(trials: list[Trial]) -> list[Split]:
    """The splits of some trainings, each once, in order."""
    return list(dict.fromkeys(trial.split for trial in trials))


def read_experiment(
    path: Path, smoke: bool = False, external: Sequence[str] = ()
) -> tuple[Experiment, list[Arm]]:
    """Read and check an experiment file; with `smoke`, what tries it out in a minute or two.

    `external`: NAME=DATASET to test on, in place of those that `classifier` names in the file.

    Raises UserError naming the file and the key: unknown keys, options that the classifier or the
    generator does not have, comparisons of arms that are not there or differ in several things.
    """
    content = read_yaml(path)
    known = [item.name for item in dataclasses.fields(Experiment)]
    if unknown := sorted(set(content) - set(known)):
        raise UserError(f"{path}: unknown key {some(unknown)}; known: {', '.join(known)}")
    _check_shapes(path, content)
    experiment = Experiment(**content)
    if smoke:
        experiment = _smoke(experiment)
    if external:
        asked = {**experiment.classifier, "external": list(external)}
        experiment = dataclasses.replace(experiment, classifier=asked)
    for pair in experiment.comparisons:
        for name in pair:
            if name not in experiment.arms:
                raise UserError(
                    f"{path}: comparisons: no arm {name}; arms: {list(experiment.arms)}"
                )
    _refuse(path, "classifier", experiment.classifier)
    _refuse(path, "gan", experiment.gan)
    shared = _recipe(path, experiment.recipe) | experiment.classifier
    arms = [_arm(path, experiment, name, shared) for name in experiment.arms]
    _check_comparisons(path, experiment, arms)
    return experiment, arms


def _smoke(experiment: Experiment) -> Experiment:
    """The same arms with as little of everything as shows that it runs."""
    gan = {key: value for key, value in experiment.gan.items() if key != "minutes"}
    return dataclasses.replace(
        experiment,
        folds=[0, 1] if not isinstance(experiment.folds, int) else experiment.folds,
        seeds=experiment.seeds[:2],
        gan_seeds=experiment.gan_seeds[:1],
        gan=gan | {"kimg": 0.016, "batch": 8, "evaluations": 0},
        classifier=experiment.classifier | {"smoke": True},
        bootstrap=1000,
        smoke=True,
    )


def differences(arm: Arm, reference: Arm) -> dict[str, list[str]]:
    """In what two arms differ: options by the thing that they belong to (THINGS), or themselves."""
    found: dict[str, list[str]] = {}
    one, other = _described(arm), _described(reference)
    for key in dict.fromkeys([*one, *other]):
        if one.get(key) != other.get(key):
            thing = next((name for name, keys in THINGS.items() if key in keys), key)
            found.setdefault(thing, []).append(key)
    return found


def _described(arm: Arm) -> dict[str, Any]:
    described = flat(arm.options)
    if arm.source is not None:
        described |= {key: getattr(arm.source, key) for key in SOURCE_KEYS}
    return described


def _check_comparisons(path: Path, experiment: Experiment, arms: list[Arm]) -> None:
    by_name = {arm.name: arm for arm in arms}
    for name, reference in experiment.comparisons:
        found = differences(by_name[name], by_name[reference])
        if not found:
            raise UserError(
                f"{path}: comparisons: {name} and {reference} are the same arm under two names, so "
                "a difference would mean nothing; compare arms that differ in one thing"
            )
        if len(found) > 1 and not experiment.unequal:
            words = "; ".join(f"{thing} ({', '.join(keys)})" for thing, keys in found.items())
            raise UserError(
                f"{path}: comparisons: {name} and {reference} differ in more than one thing: "
                f"{words}. Their difference could come from any of them: make all but one equal, "
                "or add `unequal: true`, which the report will show"
            )


def _recipe(path: Path, name: str) -> dict[str, Any]:
    """A recipe's options but for what the runner decides: its folds, say."""
    if not name:
        return {}
    if not (file := RECIPES / f"{name}.yaml").exists():
        known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
        raise UserError(f"{path}: recipe {name}: unknown; known: {known}")
    return {key: value for key, value in read_yaml(file).items() if key not in OWNED}


def _arm(path: Path, experiment: Experiment, name: str, shared: dict[str, Any]) -> Arm:
    own = dict(experiment.arms[name] or {})
    where = f"{path}: arm {name}"
    _refuse(path, f"arm {name}", own)
    given = {key: own.pop(key) for key in SOURCE_KEYS if key in own}
    options = from_mapping(ClassifierOptions, shared | own, where)
    if parse_share(f"{where}: synthetic", options.training_set.synthetic) == 0:
        if given:
            raise UserError(
                f"{where}: {some(list(given))} without `synthetic`, which says how many synthetic "
                "images there are: add `synthetic: 0.3`, or remove it"
            )
        return Arm(name, None, options)
    return Arm(name, _source(where, experiment, given, options), options)


def _source(
    where: str, experiment: Experiment, given: dict[str, Any], options: ClassifierOptions
) -> Source:
    """Where an arm's images come from, by its SOURCE_KEYS."""
    pool, own = str(given.get("pool", "gan")), given.get("gan", {})
    both = given.get("both_classes", False)
    if not isinstance(both, bool):
        raise UserError(f"{where}: both_classes: expected true or false, found {both!r}")
    if pool != "gan":
        if own or "truncation" in given:
            raise UserError(f"{where}: gan and truncation: of `pool: gan` only, found pool: {pool}")
        if both:
            raise UserError(f"{where}: both_classes: needs `pool: gan` with `gan: classes: target`")
        return Source(pool)
    if not isinstance(own, dict):
        raise UserError(f"{where}: gan: expected a mapping of options, found {own!r}")
    _refuse(Path(where), "gan", own)
    share = options.task.malignant_share
    asked = experiment.gan | own | ({"malignant_share": share} if share < 1 else {})
    if both:
        asked = {"classes": "target"} | asked
    gan = from_mapping(GanOptions, asked, f"{where}: gan")
    if both and gan.images.classes != "target":
        raise UserError(
            f"{where}: both_classes: needs a generator of both, `gan: {{classes: target}}`, found "
            f"classes: {gan.images.classes}"
        )
    truncation = given.get("truncation", 1.0)
    if not (isinstance(truncation, int | float) and 0 < truncation <= 1):
        raise UserError(f"{where}: truncation: expected a number, 0 to 1, found {truncation!r}")
    unlike = {key: value for key, value in asked.items() if experiment.gan.get(key) != value}
    name = "-".join(f"{key}-{value}" for key, value in sorted(unlike.items())) or "default"
    check_name(name, f"{where}: gan")
    return Source("gan", name, gan, float(truncation), both)


def _refuse(path: Path, place: str, options: dict[str, Any]) -> None:
    if taken := [key for key in options if key.replace("-", "_") in OWNED]:
        raise UserError(f"{path}: {place}: {some(taken)} is set by the runner, remove it")


def _check_shapes(path: Path, content: dict[str, Any]) -> None:
    """The types of the top-level keys, so that the rest can rely on them."""

    def need(key: str, good: bool, expected: str) -> None:
        if not good:
            raise UserError(f"{path}: {key}: expected {expected}, found {content.get(key)!r}")

    arms, pairs = content.get("arms"), content.get("comparisons")
    options = (dict, type(None))
    need("arms", isinstance(arms, dict) and len(arms) > 1, "two arms or more, `name: {options}`")
    assert isinstance(arms, dict)
    need("arms", all(isinstance(arm, options) for arm in arms.values()), "`name: {options}`")
    for name in arms:
        check_name(name, f"{path}: arms")
    need("comparisons", isinstance(pairs, list) and bool(pairs), "a list of [arm, reference] pairs")
    assert isinstance(pairs, list)
    is_pair = [isinstance(pair, list) and len(pair) == 2 for pair in pairs]
    need("comparisons", all(is_pair), "a list of [arm, reference] pairs")
    for pair in pairs:
        need(
            "comparisons", all(isinstance(name, str) for name in pair), "names of arms (in quotes)"
        )
        need("comparisons", pair[0] != pair[1], "an arm and another one as its reference")
    unordered = {frozenset(pair) for pair in pairs}
    need("comparisons", len(unordered) == len(pairs), "each pair once, in one direction")
    need("description", isinstance(content.get("description", ""), str), "a sentence")
    for key in ("gan", "classifier"):
        need(key, isinstance(content.get(key, {}), dict), "a mapping of options")
    for key in ("seeds", "gan_seeds"):
        seeds = content.get(key, [0])
        whole = isinstance(seeds, list) and all(type(s) is int and SEEDS.holds(s) for s in seeds)
        need(key, whole and 0 < len(seeds) == len(set(seeds)), f"a list of whole numbers {SEEDS}")
    need("recipe", isinstance(content.get("recipe", ""), str), "the name of a recipe")
    need("folds", _are_folds(content.get("folds", 0)), "a fold's number, a list of them, or rotate")
    margin, replicates = content.get("margin", 0.01), content.get("bootstrap", 4000)
    need("margin", isinstance(margin, float) and 0 < margin < 0.5, "an AUC difference, 0 to 0.5")
    enough = type(replicates) is int and REPLICATES.holds(replicates)
    need("bootstrap", enough, f"a number of replicates {REPLICATES}")
    need("unequal", isinstance(content.get("unequal", False), bool), "true or false")


def _are_folds(folds: Any) -> bool:
    if isinstance(folds, list):
        whole = all(type(fold) is int and fold >= 0 for fold in folds)
        return whole and 0 < len(folds) == len(set(folds))
    return folds == ROTATE or (type(folds) is int and folds >= 0)
