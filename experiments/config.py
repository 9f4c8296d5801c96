"""What an experiment file may say, and its check before anything is computed."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier.options import RECIPES, parse_share
from classifier.options import TrainOptions as ClassifierOptions
from dermsynth.cli import from_mapping, read_yaml
from dermsynth.errors import UserError, some
from dermsynth.names import check_name
from dermsynth.options import SEEDS, Between
from gan.train import TrainOptions as GanOptions

CONFIGS = Path(__file__).parent / "configs"  # found by name from anywhere
SAMPLERS = ("oracle", "broken")  # pools drawn by the phantom's sampler instead of a generator
REPLICATES = Between(1000, 1_000_000)
OWNED = ("data", "fold", "seed", "out", "resume", "overwrite", "device", "precision", "tracking")


@dataclass(frozen=True)
class Experiment:
    """An experiment file. Arms differ in what they say here and share everything else."""

    arms: dict[str, dict[str, Any]]  # name -> options of classifier.train; `pool` as in `Arm`
    comparisons: list[list[str]]  # [arm, reference] pairs; the first is the primary one
    description: str = ""  # one sentence for the report
    fold: int = 0  # validate on this fold, train on the others, test on the test part
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])  # classifier seeds, all arms
    gan_seeds: list[int] = field(default_factory=lambda: [0])  # one generator each
    gan: dict[str, Any] = field(default_factory=dict)  # options of gan.train
    recipe: str = ""  # classifier/recipes/NAME.yaml, under the options of `classifier`
    classifier: dict[str, Any] = field(default_factory=dict)  # options of classifier.train
    margin: float = 0.01  # AUC; differences smaller than this count as none, fixed beforehand
    bootstrap: int = 4000  # replicates of the group bootstrap


@dataclass(frozen=True)
class Arm:
    """One arm with its classifier options resolved but for seed and pool."""

    name: str
    pool: str | None  # "gan", a sampler's name, a pool folder, or None: no synthetic images
    options: ClassifierOptions

    def gan_seeds(self, experiment: Experiment) -> list[int | None]:
        """The generator seeds that this arm is repeated over; [None] where it has none."""
        return list(experiment.gan_seeds) if self.pool == "gan" else [None]


@dataclass(frozen=True)
class Trial:
    """One training of a classifier: an arm, a seed and, where it has one, a generator."""

    arm: Arm
    seed: int
    gan_seed: int | None

    @property
    def name(self) -> str:
        """Its folder's name."""
        generator = "" if self.gan_seed is None else f"-gan{self.gan_seed}"
        return f"{self.arm.name}-seed{self.seed}{generator}"

    def folder(self, out: Path) -> Path:
        """Its classifier run in the experiment's folder `out`."""
        return out / "trials" / self.name

    def pool_folder(self, out: Path) -> Path | None:
        """The pool that it trains with; None where it has no synthetic images."""
        source = self.arm.pool
        return None if source is None else pool_folder(out, source, self.gan_seed)


def gan_folder(out: Path, seed: int) -> Path:
    """The generator run of a seed in the experiment's folder `out`."""
    return out / "gan" / f"seed{seed}"


def pool_folder(out: Path, source: str, seed: int | None) -> Path:
    """Where the pool of a source (`gan`, a sampler, or itself a pool folder) lies."""
    if source == "gan":
        return out / "pools" / f"gan{seed}"
    return out / "pools" / source if source in SAMPLERS else Path(source)


def read_experiment(path: Path) -> tuple[Experiment, list[Arm], GanOptions]:
    """Read and check an experiment file.

    Raises UserError naming the file and the key: unknown keys, options that the classifier or the
    generator does not have, comparisons of arms that are not there.
    """
    content = read_yaml(path)
    known = [item.name for item in dataclasses.fields(Experiment)]
    if unknown := sorted(set(content) - set(known)):
        raise UserError(f"{path}: unknown key {some(unknown)}; known: {', '.join(known)}")
    _check_shapes(path, content)
    experiment = Experiment(**content)
    for pair in experiment.comparisons:
        for name in pair:
            if name not in experiment.arms:
                raise UserError(
                    f"{path}: comparisons: no arm {name}; arms: {list(experiment.arms)}"
                )
    _refuse(path, "classifier", experiment.classifier)
    shared = _recipe(path, experiment.recipe) | experiment.classifier
    arms = [_arm(path, experiment, name, shared) for name in experiment.arms]
    _refuse(path, "gan", experiment.gan)
    return experiment, arms, from_mapping(GanOptions, experiment.gan, f"{path}: gan")


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
    share = str(own.get("synthetic", shared.get("synthetic", 0)))
    has_synthetic = parse_share(f"{where}: synthetic", share) != 0
    pool = str(own.pop("pool", "gan")) if has_synthetic else None
    options = from_mapping(ClassifierOptions, shared | own, where)
    return Arm(name, pool, options)


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
    need("comparisons", len(set(map(tuple, pairs))) == len(pairs), "each pair once")
    need("description", isinstance(content.get("description", ""), str), "a sentence")
    for key in ("gan", "classifier"):
        need(key, isinstance(content.get(key, {}), dict), "a mapping of options")
    for key in ("seeds", "gan_seeds"):
        seeds = content.get(key, [0])
        whole = isinstance(seeds, list) and all(type(s) is int and SEEDS.holds(s) for s in seeds)
        need(key, whole and 0 < len(seeds) == len(set(seeds)), f"a list of whole numbers {SEEDS}")
    need("recipe", isinstance(content.get("recipe", ""), str), "the name of a recipe")
    fold = content.get("fold", 0)
    need("fold", type(fold) is int and fold >= 0, "a fold's number")
    margin, replicates = content.get("margin", 0.01), content.get("bootstrap", 4000)
    need("margin", isinstance(margin, float) and 0 < margin < 0.5, "an AUC difference, 0 to 0.5")
    enough = type(replicates) is int and REPLICATES.holds(replicates)
    need("bootstrap", enough, f"a number of replicates {REPLICATES}")
