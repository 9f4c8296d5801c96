"""What a pool was worth in real lesions: known answers, a plain second way, coverage."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from data.store import Dataset, DatasetRecord
from dermsynth.records import dump_record, parse_record
from experiments.compared import FoldScores, trial_predictions
from experiments.config import CONFIGS, Split, read_experiment
from experiments.joint_aucs import joint_aucs
from experiments.learning_curve import LearningCurve, curve_of, curve_sentences, learning_curve
from experiments.learning_curve_plot import learning_curve_plot
from experiments.nested_subsets import Subset, nested_subsets
from experiments.statistics.intervals import Spread
from experiments.statistics.trainings import Images, trainings_of
from experiments.statistics.variance import estimate

SHARES = (0.25, 0.5, 0.75, 1.0)
SUBSETS = [Subset(s, 720 * s, 400 * s, f"real{s:g}", f"synthetic{s:g}") for s in SHARES]
EXACT = {"real0.25": 0.78, "real0.5": 0.82, "real0.75": 0.85, "real1": 0.86}


def drawn_fold(
    rng, aucs, fold=0, groups=(60, 200), seeds=3, gans=0, seeds_move=0.0, gans_move=0.0, noise=0.5
):
    """Binormal scores of arms with these population AUCs; two images a group, correlated.

    Seeds (of each arm by itself) and generators shift the mean; arms share most of their noise.
    """
    malignant, benign = groups
    group = np.repeat(np.arange(malignant + benign), 2)
    target = group < malignant
    shared = 0.7 * rng.normal(size=malignant + benign)[group] + 0.7 * rng.normal(size=len(group))
    spread = np.sqrt(0.98 + noise**2)
    arms = {}
    for arm, auc in aucs.items():
        here = gans if gans and arm.startswith("synthetic") else 0
        keys = [(seed, gan) for seed in range(seeds) for gan in (range(here) if here else [None])]
        of_seed = seeds_move * rng.normal(size=seeds)
        of_gan = gans_move * rng.normal(size=here)
        shift = np.array([of_seed[k] + (0 if g is None else of_gan[g]) for k, g in keys])
        mean = (np.sqrt(2) * spread * stats.norm.ppf(auc) + shift)[:, None] * target
        scores = mean + shared + noise * rng.normal(size=(len(keys), len(group)))
        arms[arm] = (keys, scores)
    names = [f"{fold}-{number}" for number in range(len(group))]
    groups_of = [f"{fold}-{number}" for number in group]
    rows = pd.DataFrame({"image_id": names, "target": target.astype(int), "group": groups_of})
    return FoldScores(fold, rows, Images.of(target, group, "test"), arms)


def as_predictions(folds):
    """The table that the runner keeps."""
    trials = []
    for fold in folds:
        for arm, (keys, scores) in fold.arms.items():
            for (seed, gan), score in zip(keys, scores, strict=True):
                rows = fold.rows.assign(part="test", score=score, fold=fold.fold)
                trials.append((arm, fold.fold, seed, gan, rows))
    return trial_predictions(trials)


def with_synthetic(**aucs):
    rest = {f"synthetic{s:g}": EXACT[f"real{s:g}"] for s in SHARES}
    return EXACT | rest | {f"synthetic{key}": value for key, value in aucs.items()}


def worth_at(curve, share):
    return next(worth for worth in curve.worths if worth.share == share)


# --- known answers --------------------------------------------------------------------------------


def test_a_pool_that_does_as_well_as_twice_the_lesions_is_worth_as_much_again():
    rng = np.random.default_rng(0)
    fold = drawn_fold(rng, with_synthetic(), groups=(200, 600))
    fold.arms["synthetic0.25"] = fold.arms["real0.5"]
    fold.arms["synthetic0.5"] = fold.arms["real1"]
    fold.arms["synthetic0.75"] = fold.arms["real0.25"]
    curve = learning_curve(as_predictions([fold]), SUBSETS)
    assert curve is not None
    quarter, half, most, whole = curve.worths
    assert (quarter.outcome, half.outcome, whole.outcome) == ("interpolated",) * 2 + ("largest",)
    assert quarter.equals == pytest.approx(200)
    assert quarter.n_groups == 100
    assert (quarter.ci_low, quarter.ci_high) == pytest.approx((200, 200))  # the very same models
    assert half.equals == pytest.approx(400)
    assert half.ci_high is None  # up to the largest subset and, for all that is known, beyond
    assert most.equals == pytest.approx(100)  # a pool may do harm
    assert most.ci_low is None
    assert (whole.equals, whole.ci_low, whole.ci_high) == (None, None, None)
    words = " ".join(curve_sentences(curve))
    assert "Exploratory" in words
    assert "as well as 200 groups" in words
    assert "worth +100 groups, 2.00 times as many" in words
    assert "At 100% (400 groups) the curve of real images ends" in words


def test_a_pool_that_was_worth_no_group_more_has_no_minus_before_its_zero():
    folds = [drawn_fold(np.random.default_rng(0), with_synthetic(), groups=(300, 600))]
    curve = curve_of(folds, SUBSETS, "test")
    assert curve is not None
    found = {"outcome": "interpolated", "equals": 199.7, "ci_low": 199.8, "ci_high": 230.0}
    nothing = curve.worths[1].model_copy(update=found)
    words = " ".join(curve_sentences(curve.model_copy(update={"worths": [nothing]})))
    assert "was worth +0 groups, 1.00 times as many; 95% interval +0 to +30" in words


def test_between_neighbours_auc_is_linear_in_the_logarithm():
    fold = drawn_fold(np.random.default_rng(1), with_synthetic(**{"0.25": 0.835}), (200, 600))
    curve = curve_of([fold], SUBSETS, "test")
    assert curve is not None
    auc = curve.points[0].synthetic.auc
    real = [point.real.auc for point in curve.points]
    assert real[1] < auc < real[2]
    expected = 2 ** np.interp(auc, real, np.log2([point.n_groups for point in curve.points]))
    assert worth_at(curve, 0.25).equals == pytest.approx(expected, rel=1e-4)


def test_beyond_and_below_the_data_nothing_is_extrapolated():
    better = with_synthetic(**{"0.25": 0.95, "0.5": 0.6})
    fold = drawn_fold(np.random.default_rng(2), better, (200, 600))
    curve = curve_of([fold], SUBSETS, "test")
    assert curve is not None
    beyond, below = worth_at(curve, 0.25), worth_at(curve, 0.5)
    assert (beyond.outcome, beyond.equals) == ("beyond", None)
    assert (beyond.ci_low, beyond.ci_high) == (pytest.approx(400), None)
    assert (below.outcome, below.equals) == ("below", None)
    assert (below.ci_low, below.ci_high) == (None, pytest.approx(100))
    words = " ".join(curve_sentences(curve))
    assert "beyond the data" in words
    assert "at least +300" in words
    assert "less well than 100 groups" in words
    assert "at most -100" in words


def test_of_a_flat_curve_nothing_can_be_told():
    flat = dict.fromkeys(EXACT, 0.8)
    fold = drawn_fold(np.random.default_rng(3), with_synthetic(**{"0.25": 0.85}) | flat)
    curve = curve_of([fold], SUBSETS, "test")
    assert curve is not None
    assert curve.rise_low < 0
    assert [worth.outcome for worth in curve.worths] == ["flat"] * 3 + ["largest"]
    assert all(worth.equals is None for worth in curve.worths)
    assert "cannot be told" in " ".join(curve_sentences(curve))


def test_too_few_groups_are_no_interval():
    fold = drawn_fold(np.random.default_rng(4), with_synthetic(), groups=(1, 40))
    curve = curve_of([fold], SUBSETS, "test")
    assert curve is not None
    assert curve.points[0].real.ci_low is None
    assert curve.rise_low is None
    assert "too few groups" in " ".join(curve_sentences(curve))


def test_a_series_needs_two_whole_subsets():
    fold = drawn_fold(np.random.default_rng(5), with_synthetic(), seeds=2)
    assert curve_of([fold], SUBSETS[:1], "test") is None
    del fold.arms["synthetic0.5"]
    curve = curve_of([fold], SUBSETS, "test")
    assert curve is not None
    assert [point.share for point in curve.points] == [0.25, 0.75, 1.0]
    assert curve.arms_left_out == ["real0.5", "synthetic0.5"]
    assert "real0.5" in curve_sentences(curve)[-1]
    assert curve_of([fold], SUBSETS[:2], "test") is None


def test_a_training_without_partners_is_left_out_and_counted():
    fold = drawn_fold(np.random.default_rng(6), with_synthetic(), seeds=3, gans=2)
    keys, scores = fold.arms["real0.5"]
    fold.arms["real0.5"] = (keys[:2], scores[:2])
    curve = curve_of([fold], SUBSETS, "test")
    assert curve is not None
    assert (curve.n_seeds, curve.n_gan_seeds) == (2, 2)
    assert curve.left_out == 3 + 4 * 2  # seed 2 of the other real arms, and with each generator
    assert parse_record(dump_record(curve).encode(), LearningCurve, "x", "mend") == curve


# --- a second way ---------------------------------------------------------------------------------


def folds_of_two():
    rng = np.random.default_rng(7)
    aucs = with_synthetic(**{"0.25": 0.81})
    moves = {"seeds": 4, "gans": 3, "seeds_move": 0.1, "gans_move": 0.1}
    return [drawn_fold(rng, aucs, fold, (30 + 9 * fold, 90), **moves) for fold in range(2)]


def test_parts_of_variance_are_those_of_a_comparison():
    folds, names = folds_of_two(), ["synthetic0.25", "real0.25"]
    found = estimate(
        [trainings_of(f.fold, f.images, *(f.arms[name] for name in names)) for f in folds], True
    )
    joint = joint_aucs(folds, names)
    contrast = np.array([[1.0, -1.0]])
    assert contrast[0] @ joint.auc == pytest.approx(found.delta)

    def form(matrix):
        return float(contrast[0] @ matrix @ contrast[0])

    assert sum(form(part.total) for part in joint.groups) == pytest.approx(
        found.variance.groups.variance
    )
    assert form(joint.crossed) == pytest.approx(found.variance.crossed)
    assert form(joint.seeds.total) == pytest.approx(found.variance.seeds.variance)
    assert form(joint.gans.total) == pytest.approx(found.variance.gans.variance)
    assert (joint.seeds.df, joint.gans.df) == (found.variance.seeds.df, found.variance.gans.df)
    spread = Spread.of(found, stats.norm.ppf((np.arange(20000) + 0.5) / 20000))
    own, groups = spread.own, spread.groups
    reach = own * stats.t.ppf(0.975, groups.df) ** 2 * groups.variance
    reach += sum(stats.t.ppf(0.975, part.df) ** 2 * part.variance for part in spread.training)
    assert joint.reach(contrast, 0.05)[0] == pytest.approx(np.sqrt(reach))


def plain_fieller(b, s, cov, t):
    """Fieller's roots of (s - b0) / (b1 - b0), by his formula; covariance of (b0, b1, s)."""
    to_top, to_bottom = np.array([-1.0, 0.0, 1.0]), np.array([-1.0, 1.0, 0.0])
    top, bottom = s - b[0], b[1] - b[0]
    v11, v12, v22 = to_top @ cov @ to_top, to_top @ cov @ to_bottom, to_bottom @ cov @ to_bottom
    g = t**2 * v22 / bottom**2
    ratio = top / bottom
    root = np.sqrt(v11 - 2 * ratio * v12 + ratio**2 * v22 - g * (v11 - v12**2 / v22))
    middle = ratio - g * v12 / v22
    return (middle + np.array([-1, 1]) * t / bottom * root) / (1 - g)


def test_between_two_subsets_the_interval_is_that_of_fieller():
    two = [SUBSETS[0], SUBSETS[3]]
    aucs = {"real0.25": 0.7, "synthetic0.25": 0.8, "real1": 0.9, "synthetic1": 0.9}
    fold = drawn_fold(np.random.default_rng(8), aucs, (400, 1200), seeds=1)
    curve = curve_of([fold], two, "test")
    joint = joint_aucs([fold], ["real0.25", "real1", "synthetic0.25"])
    (part,) = joint.groups
    t = stats.t.ppf(0.975, 400 - 1)  # Satterthwaite's degrees of freedom are a little more
    low, high = plain_fieller(joint.auc[:2], joint.auc[2], part.total, t)
    worth = curve.worths[0]
    found = [np.log2(end / 100) / 2 for end in (worth.ci_low, worth.ci_high)]  # two octaves
    assert 0.2 < low < high < 0.8
    assert found == pytest.approx([low, high], abs=0.002)


# --- the figure, and the arms of an experiment ---------------------------------------------------


@pytest.mark.parametrize("width", [8.6, 4.0])
def test_the_figure_shows_both_curves_and_the_worth(width):
    aucs = with_synthetic(**{"0.25": 0.83, "0.5": 0.9, "0.75": 0.9})
    curve = curve_of([drawn_fold(np.random.default_rng(0), aucs, groups=(300, 600))], SUBSETS, "x")
    svg = learning_curve_plot(curve, width)
    assert svg.count(">worth ") == 1
    assert f"worth {curve.worths[0].equals / 100:.2f}×" in svg
    assert "with synthetic images" in svg
    assert "95% interval of the worth" in svg
    assert svg == learning_curve_plot(curve, width)


@pytest.fixture
def dataset():
    """Sixty malignant groups of two images and sixty benign ones; a test part and three folds."""
    number = np.repeat(np.arange(120), 2)
    table = pd.DataFrame(
        {
            "image_id": [f"i{place}" for place in range(240)],
            "group": [f"g{group}" for group in number],
            "target": (number < 60).astype(np.uint8),
            "fold": number % 4 - 1,
        }
    )
    return Dataset("d", None, table, DatasetRecord(folds_hash="0" * 64), None)


def few(dataset):
    """With one malignant group to train on."""
    table = dataset.table
    spare = (table["target"] == 1) & (table["group"] != "g2")
    return dataclasses.replace(dataset, table=table[~spare].reset_index(drop=True))


SERIES = """
arms:
  real100: {}
  real_oversampled: {oversample: 0.3}
  real25: {malignant_share: 0.25}
  oversampled25: {malignant_share: 0.25, oversample: 0.3}
  longer50: {malignant_share: 0.5, epochs: 7}
  synthetic100: {synthetic: 0.3}
  synthetic25: {malignant_share: 0.25, synthetic: 0.3}
  longer_synthetic50: {malignant_share: 0.5, epochs: 7, synthetic: 0.3}
  another_dose25: {malignant_share: 0.25, synthetic: 0.4}
  frozen25: {malignant_share: 0.25, frozen: 3, synthetic: 0.3}
  truncated25: {malignant_share: 0.25, synthetic: 0.3, truncation: 0.7}
  elsewhere100: {synthetic: 0.5, pool: somewhere}
  elsewhere25: {malignant_share: 0.25, synthetic: 0.5, pool: somewhere}
comparisons: [[synthetic100, real100]]
"""


def test_a_series_is_found_among_arms_that_differ_in_more(tmp_path, dataset):
    (tmp_path / "e.yaml").write_text(SERIES)
    arms = read_experiment(tmp_path / "e.yaml")[1]
    found = nested_subsets(dataset, arms, [Split(0, None)])
    assert [(subset.share, subset.real, subset.synthetic) for subset in found] == [
        (0.25, "real25", "synthetic25"),
        (1.0, "real100", "synthetic100"),
    ]
    assert [(subset.n_groups, subset.n_images) for subset in found] == [(8, 16), (30, 60)]
    assert nested_subsets(few(dataset), arms, [Split(0, None)]) == []  # 25% of one is that one
    for missing in ("real25", "synthetic25", "real100"):
        rest = [arm for arm in arms if arm.name != missing]
        assert nested_subsets(dataset, rest, [Split(0, None)]) == []


def test_the_delivered_experiment_is_a_series_of_three(dataset):
    arms = read_experiment(CONFIGS / "learning-curve.yaml")[1]
    found = nested_subsets(dataset, arms, [Split(0, None), Split(1, None)])
    assert [subset.share for subset in found] == [0.25, 0.5, 1.0]


# --- coverage -------------------------------------------------------------------------------------


def covered(rounds, seed, **design):
    """How often the interval holds the truth, and how often it has both ends."""
    rng = np.random.default_rng(seed)
    truth = 230.0
    nodes = np.log2([subset.n_groups for subset in SUBSETS])
    auc = float(np.interp(np.log2(truth), nodes, list(EXACT.values())))
    aucs = with_synthetic(**{"0.25": auc})
    hits, whole = 0, 0
    for _ in range(rounds):
        curve = curve_of([drawn_fold(rng, aucs, **design)], SUBSETS, "test")
        assert curve is not None
        worth = worth_at(curve, 0.25)
        low, high = worth.ci_low or 0, worth.ci_high or np.inf
        hits += low <= truth <= high
        whole += worth.ci_low is not None and worth.ci_high is not None
    return hits / rounds, whole / rounds


def test_the_interval_holds_the_truth():
    hits, whole = covered(50, 12, seeds=1, groups=(120, 200))
    assert hits >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 50)
    assert whole > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("malignant_groups", [40, 120])
def test_given_the_models_it_holds_the_truth_as_often_as_promised(malignant_groups):
    hits, _ = covered(1000, 13, seeds=1, groups=(malignant_groups, 200))
    assert abs(hits - 0.95) <= 3 * np.sqrt(0.95 * 0.05 / 1000)


@pytest.mark.slow
@pytest.mark.parametrize("moves", [0.0, 0.05, 0.15])
def test_where_trainings_vary_it_errs_on_the_wide_side(moves):
    hits, _ = covered(500, 10, seeds=5, gans=3, seeds_move=moves, gans_move=moves)
    assert hits >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 500)
