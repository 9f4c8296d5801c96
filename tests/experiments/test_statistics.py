"""Statistics against independent references, known answers, and error rates by simulation."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from MLstatkit import Delong_test
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from dermsynth.errors import UserError
from dermsynth.group_bootstrap import clustered, count_pairs, estimates, interval, p_value
from experiments import statistics


def draw(rng, malignant_groups, images, auc=0.85, delta=0.0):
    """Two arms' binormal scores, correlated with each other (0.8) and within groups (0.6).

    `images` a group at most; "3" means always 3. Five benign groups to a malignant one.
    """
    groups = 6 * malignant_groups
    sizes = np.full(groups, 3) if images == "3" else rng.integers(1, int(images) + 1, groups)
    group = np.repeat(np.arange(groups), sizes)
    target = group < malignant_groups

    def effects(count):
        return np.sqrt(0.8) * rng.normal(size=count) + np.sqrt(0.2) * rng.normal(size=(2, count))

    noise = np.sqrt(0.6) * effects(groups)[:, group] + np.sqrt(0.4) * effects(len(group))
    a, b = np.sqrt(2) * stats.norm.ppf([[auc + delta], [auc]]) * target + noise
    return SimpleNamespace(target=target, group=group, a=a, b=b)


def sample(seed=0, malignant_groups=40, delta=0.0):
    return draw(np.random.default_rng(seed), malignant_groups, "4", delta=delta)


def compare(drawn, a=None, b=None, **options):
    a = drawn.a[None, None] if a is None else a
    b = drawn.b[None, None] if b is None else b
    options = {"replicates": 999} | options
    return statistics.compare("arm", "ref", "test", drawn.target, a, b, drawn.group, **options)


def pairs_of(drawn, group=None):
    group = drawn.group if group is None else group
    return count_pairs(drawn.target, group, drawn.a[None], drawn.b[None])


@st.composite
def scored(draw_from):
    """Targets of both classes, coarse scores (many ties), whole weights with both classes."""
    n = draw_from(st.integers(2, 40))
    target = np.array(draw_from(st.lists(st.booleans(), min_size=n, max_size=n)))
    target[:2] = True, False
    score = np.array(draw_from(st.lists(st.integers(0, 6), min_size=n, max_size=n))) / 7
    weights = draw_from(st.lists(st.lists(st.integers(0, 3), min_size=n, max_size=n), min_size=1))
    weights = np.array(weights)
    weights[:, :2] += 1
    return target, score, weights


# --- AUC and DeLong -------------------------------------------------------------------------------


@given(scored())
def test_auc_equals_scikit_learn_with_ties_and_weights(case):
    target, score, weights = case
    assert statistics.auc(target, score) == pytest.approx(roc_auc_score(target, score))
    expected = [roc_auc_score(target, score, sample_weight=row) for row in weights]
    np.testing.assert_allclose(statistics.weighted_auc(target, score, weights), expected)


def test_weighted_auc_of_one_class_is_nan():
    target, score = np.array([True, False, True]), np.array([0.2, 0.1, 0.9])
    assert np.isnan(statistics.weighted_auc(target, score, np.array([[1, 0, 1]]))).all()


@pytest.mark.parametrize("rounding", [1, 8])
@pytest.mark.parametrize("seed", range(5))
def test_delong_equals_mlstatkit(seed, rounding):
    drawn = sample(seed, delta=0.03)
    a, b = drawn.a.round(rounding), drawn.b.round(rounding)
    z, p, *_ = Delong_test(drawn.target, a, b)
    delta, se, own_p = statistics.delong_test(drawn.target, a, b)
    assert own_p == pytest.approx(float(p), abs=1e-9)
    assert -delta / se == pytest.approx(float(z))  # MLstatkit subtracts the other way round


def test_delong_without_difference_or_with_too_few_images():
    target, score = np.array([1, 1, 0, 0]), np.array([0.3, 0.8, 0.4, 0.1])
    assert statistics.delong_test(target, score, score) == (0.0, 0.0, 1.0)
    one = np.array([1, 0, 0, 0])
    delta, se, p = statistics.delong_test(one, score, -score)
    assert se is None
    assert p == 1
    assert delta == pytest.approx(1 / 3 - 2 / 3)


# --- group variance and group bootstrap -----------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_groups_of_one_image_give_delongs_variance(seed):
    drawn = sample(seed, delta=0.02)
    delta, variance, _ = clustered(pairs_of(drawn, np.arange(len(drawn.target))))
    expected, se, _ = statistics.delong_test(drawn.target, drawn.a, drawn.b)
    assert delta == pytest.approx(expected)
    assert variance == pytest.approx(se**2, rel=1e-6)


def test_group_variance_is_obuchowskis():
    """His formula, written out, where every group holds both classes (so his I, I01, I10 agree)."""
    rng = np.random.default_rng(1)
    groups, per = 25, 4
    group = np.repeat(np.arange(groups), per)
    target = np.tile([True, False, False, rng.random() < 2], groups)
    score = target + rng.normal(size=groups)[group] + rng.normal(size=groups * per)
    pairs = count_pairs(target, group, score[None], None)
    theta = roc_auc_score(target, score)
    m, n = target.sum(), (~target).sum()
    v10 = np.array([(score[~target] < s).mean() for s in score[target]])
    v01 = np.array([(score[target] > s).mean() for s in score[~target]])
    x = np.bincount(group[target], v10 - theta)
    y = np.bincount(group[~target], v01 - theta)
    factor = groups / (groups - 1)
    s10, s01, s11 = factor / m * x @ x, factor / n * y @ y, factor * x @ y
    value, variance, _ = clustered(pairs)
    assert value == pytest.approx(theta)
    assert variance == pytest.approx(s10 / m + s01 / n + 2 * s11 / (m * n), rel=1e-6)


@given(scored(), st.integers(0, 100))
def test_resampling_groups_equals_weighting_their_images(case, seed):
    """The matrix over groups against scikit-learn on images, mixed groups and ties included."""
    target, score, _ = case
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 4, len(target))
    group = np.unique(group, return_inverse=True)[1]
    other = rng.integers(0, 4, len(target)).astype(float)
    weights = rng.integers(0, 4, (5, group.max() + 1)).astype(np.float32)
    kept = [row for row in weights if 0 < row[group][target].sum() < row[group].sum()]
    pairs = count_pairs(target, group, score[None], other[None])
    expected = [
        roc_auc_score(target, score, sample_weight=row[group])
        - roc_auc_score(target, other, sample_weight=row[group])
        for row in kept
    ]
    np.testing.assert_allclose(estimates(pairs, weights), expected, atol=1e-6)


@given(
    st.lists(st.integers(-6, 6), min_size=200, max_size=400),
    st.floats(1.5, 500),
    st.sampled_from([0.01, 0.05, 0.1, 0.3]),
)
def test_p_value_and_interval_agree(values, df, alpha):
    drawn = np.sort(np.array(values) / 8 + 0.5)
    low, high = interval(drawn, df, alpha, (-1.0, 1.0))
    assert low <= high
    assert (p_value(drawn, df) < alpha) == (low > 0 or high < 0)


def test_more_malignant_groups_widen_less():
    """The expansion for 10 groups is large, for 1,000 none: the level tends to alpha / 2."""
    drawn = np.linspace(-1, 1, 99_999)
    widths = [np.subtract(*interval(drawn, df, 0.05, (-1, 1))[::-1]) for df in (9, 99, 1e6)]
    assert widths[0] > widths[1] > widths[2] == pytest.approx(1.9, abs=1e-3)


# --- compare --------------------------------------------------------------------------------------


def test_compare_has_the_contracts_fields_and_is_json():
    drawn = sample()
    row = statistics.finish([compare(drawn)])[0]
    contract = "arm reference test_set auc_arm auc_reference delta_auc ci_low ci_high p_delong "
    contract += "p_bootstrap p_holm mde verdict ci_low_hierarchical ci_high_hierarchical n "
    contract += "n_malignant n_groups n_malignant_groups n_seeds margin"
    assert set(contract.split()) <= set(row)
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    assert row["auc_arm"] == pytest.approx(roc_auc_score(drawn.target, drawn.a))
    assert row["delta_auc"] == pytest.approx(row["auc_arm"] - row["auc_reference"])
    assert row["ci_low"] <= row["ci90_low"] <= row["delta_auc"] <= row["ci90_high"]
    assert (row["n"], row["n_malignant"]) == (len(drawn.target), drawn.target.sum())
    assert (row["n_groups"], row["n_malignant_groups"]) == (240, 40)


def test_same_seed_same_numbers_other_seed_other_numbers():
    drawn = sample()
    assert compare(drawn, seed=3) == compare(drawn, seed=3)
    assert compare(drawn, seed=3)["ci_low"] != compare(drawn, seed=4)["ci_low"]


def test_order_of_rows_and_names_of_groups_do_not_matter():
    drawn = sample()
    shuffled = np.random.default_rng(5).permutation(len(drawn.target))
    names = np.array([f"lesion-{number:04d}" for number in drawn.group])
    target, group = drawn.target[shuffled].astype(np.uint8), names[shuffled]
    a, b = drawn.a[None, None, shuffled], drawn.b[None, None, shuffled]
    row = statistics.compare("arm", "ref", "test", target, a, b, group, replicates=999)
    assert row == pytest.approx(compare(drawn))


def test_swapping_the_arms_mirrors_the_result():
    drawn = sample(delta=0.05)
    there = compare(drawn)
    back = compare(drawn, drawn.b[None, None], drawn.a[None, None])
    assert back["delta_auc"] == pytest.approx(-there["delta_auc"])
    assert back["ci_low"] == pytest.approx(-there["ci_high"])
    assert back["p_bootstrap"] == there["p_bootstrap"]
    assert back["mde"] == pytest.approx(there["mde"])


def test_identical_scores_are_equivalent_with_an_empty_interval():
    drawn = sample()
    scores = np.stack([drawn.a, drawn.b, drawn.a * 2])[None]
    row = statistics.finish([compare(drawn, scores, scores)])[0]
    assert (row["delta_auc"], row["ci_low"], row["ci_high"]) == (0, 0, 0)
    assert (row["p_bootstrap"], row["p_delong"], row["mde"]) == (1, 1, 0)
    assert row["verdict"] == "equivalent"


def test_a_clear_difference_is_found_and_a_mirrored_one_hurts():
    drawn = sample(delta=0.1, malignant_groups=60)
    a, b = drawn.a[None, None], drawn.b[None, None]
    helps, hurts = statistics.finish([compare(drawn, a, b), compare(drawn, b, a)])
    assert (helps["verdict"], hurts["verdict"]) == ("helps", "hurts")
    assert helps["p_bootstrap"] < 0.05
    assert helps["ci_low"] > 0


def test_few_malignant_groups_are_flagged_and_one_proves_nothing():
    few = compare(sample(malignant_groups=6))
    assert "Only 6 malignant" in few["note"]
    assert few["mde"] > 0
    drawn = sample(malignant_groups=1)
    perfect = drawn.target[None, None].astype(float)
    one = compare(drawn, np.repeat(perfect, 2, axis=1), np.repeat(-perfect, 2, axis=1))
    assert (one["ci_low"], one["ci_high"], one["p_bootstrap"]) == (-1, 1, 1)
    assert (one["ci_low_hierarchical"], one["ci_high_hierarchical"]) == (-1, 1)
    assert one["mde"] is None
    assert statistics.finish([one])[0]["verdict"] == "inconclusive"
    assert compare(sample(malignant_groups=10))["note"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": np.zeros(6)}, "0 malignant of 6"),
        ({"target": np.ones(6)}, "6 malignant of 6"),
        ({"group": np.arange(5)}, "6 targets but 5 groups"),
        ({"scores_arm": np.full((1, 2, 6), np.nan)}, "12 scores are not finite"),
        ({"scores_arm": np.zeros((1, 3, 6))}, r"\(1, 3, 6\) and \(1, 2, 6\)"),
        ({"scores_arm": np.zeros((1, 2, 7))}, "for 6 images"),
        ({"scores_arm": np.zeros((2, 2, 6)), "scores_reference": np.zeros((3, 2, 6))}, "GAN seeds"),
    ],
)
def test_bad_input_is_named(change, message):
    given_ = {"target": np.array([1, 0, 1, 0, 0, 0]), "group": np.arange(6)}
    given_ |= {"scores_arm": np.zeros((1, 2, 6)), "scores_reference": np.zeros((1, 2, 6))}
    with pytest.raises(UserError, match=message):
        statistics.compare("arm", "ref", "test", **given_ | change)


# --- seeds ----------------------------------------------------------------------------------------


def noisy(drawn, shape, spread, rng, seeds_move=0.0, gans_move=0.0):
    moves = rng.normal(0, seeds_move, (1, shape[1], 1)) if seeds_move else 0
    moves = moves + (rng.normal(0, gans_move, (shape[0], 1, 1)) if gans_move else 0)
    noise = rng.normal(0, spread, (*shape, len(drawn.target)))
    return drawn.b + moves * drawn.target + noise


def test_more_gan_seeds_are_no_larger_ensemble():
    """AUCs are averaged over GAN seeds; averaged scores would look better for no reason."""
    drawn = sample(malignant_groups=60)
    rng = np.random.default_rng(2)
    a, b = noisy(drawn, (40, 1), 1.0, rng), noisy(drawn, (1, 1), 1.0, rng)
    row = compare(drawn, a, b)
    alone = [roc_auc_score(drawn.target, scores) for scores in a[:, 0]]
    assert row["auc_arm"] == pytest.approx(np.mean(alone))
    assert roc_auc_score(drawn.target, a.mean(axis=(0, 1))) > row["auc_arm"] + 0.05
    assert (row["n_gan_seeds"], row["n_seeds"]) == (40, 1)


def test_training_variance_widens_and_says_what_it_covers():
    drawn = sample(malignant_groups=60)
    rng = np.random.default_rng(3)
    steady = compare(drawn, noisy(drawn, (1, 4), 0.05, rng), noisy(drawn, (1, 4), 0.05, rng))
    wild = compare(drawn, noisy(drawn, (1, 4), 0.05, rng, 0.5), noisy(drawn, (1, 4), 0.05, rng))

    def widening(row):
        return (row["ci_high_hierarchical"] - row["ci_low_hierarchical"]) / (
            row["ci_high"] - row["ci_low"]
        )

    assert 1 <= widening(steady) < 2 < widening(wild)
    assert "at most one generator" in steady["hierarchical_note"]
    gans = compare(drawn, noisy(drawn, (3, 4), 0.05, rng, 0, 0.5), noisy(drawn, (1, 4), 0.05, rng))
    assert widening(gans) > 2
    assert "3 generators and 4 classifier seeds" in gans["hierarchical_note"]


def test_one_seed_gives_no_training_variance():
    row = compare(sample())
    assert row["ci_low_hierarchical"] is None
    assert row["ci_high_hierarchical"] is None
    assert "no variance of training" in row["hierarchical_note"]


# --- Holm and the verdict -------------------------------------------------------------------------


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert statistics.holm([]) == []


@pytest.mark.parametrize(
    ("delta", "p", "ci90", "expected"),
    [
        (0.03, 0.001, (0.02, 0.04), "helps"),
        (-0.03, 0.001, (-0.04, -0.02), "hurts"),
        (0.03, 0.06, (0.001, 0.06), "inconclusive"),
        (0.002, 0.6, (-0.004, 0.008), "equivalent"),
        (0.004, 0.001, (0.002, 0.006), "equivalent"),  # significant, and too small to matter
        (0.004, 0.6, (-0.004, 0.012), "inconclusive"),
        (0.009, 0.02, (0.004, 0.014), "helps"),  # may matter, surely positive
        (-0.004, 0.3, (-0.010, 0.002), "inconclusive"),  # touches the margin
        (0.0, 1.0, (0.0, 0.0), "equivalent"),
    ],
)
def test_verdict(delta, p, ci90, expected):
    assert statistics.verdict(delta, p, *ci90, margin=0.01) == expected


def test_finish_adjusts_over_all_rows():
    row = compare(sample())
    rows = [row | {"p_bootstrap": 0.03, "delta_auc": 0.02, "ci90_high": 0.04}] * 2
    assert [r["verdict"] for r in statistics.finish(rows[:1])] == ["helps"]
    assert [r["verdict"] for r in statistics.finish(rows)] == ["inconclusive"] * 2
    assert [r["p_holm"] for r in statistics.finish(rows)] == pytest.approx([0.06, 0.06])


# --- single arms ----------------------------------------------------------------------------------


def test_auc_interval_surrounds_the_auc_and_knows_its_limits():
    drawn = sample()
    value, low, high = statistics.auc_interval(drawn.target, drawn.b, drawn.group)
    assert value == pytest.approx(roc_auc_score(drawn.target, drawn.b))
    assert 0 < low < value < high < 1
    value, low, high = statistics.auc_interval(drawn.target, drawn.target * 1.0, drawn.group)
    assert (value, high) == (1, 1)
    assert low == pytest.approx(0.025 ** (1 / 40))


def test_auc_interval_covers():
    """95% nominal; 300 test sets with 3 images a lesion: 92% or less would be 2.5 sd away."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(300):
        drawn = draw(rng, 30, "3")
        _, low, high = statistics.auc_interval(drawn.target, drawn.b, drawn.group, replicates=499)
        hits += low <= 0.85 <= high
    assert hits / 300 > 0.92


def test_roc_band_holds_the_curve_and_matches_scikit_learn():
    drawn = sample()
    score = drawn.b.round(1)
    band = statistics.roc_band(drawn.target, score, drawn.group, replicates=200)
    fpr, tpr, _ = roc_curve(drawn.target, score, drop_intermediate=False)
    np.testing.assert_allclose(band["tpr"], np.interp(band["fpr"], fpr, tpr))
    low, high = np.array(band["low"]), np.array(band["high"])
    assert (low <= high).all()
    assert (low[10:90] < high[10:90]).all()
    assert np.mean((low <= band["tpr"]) & (band["tpr"] <= high)) > 0.95
    assert band["ci_low"] < band["auc"] < band["ci_high"]
    json.dumps(band, allow_nan=False)
    by_group = np.mean(high - low)
    alone = statistics.roc_band(drawn.target, score, np.arange(len(score)), replicates=200)
    assert by_group > 1.1 * np.mean(np.subtract(alone["high"], alone["low"]))


def test_roc_band_of_constant_scores_is_the_diagonal():
    drawn = sample()
    band = statistics.roc_band(drawn.target, np.zeros(len(drawn.target)), drawn.group)
    np.testing.assert_allclose(band["tpr"], band["fpr"])


# --- error rates ----------------------------------------------------------------------------------


def false_alarms(malignant_groups, replicates, bootstrap, seed):
    """Rates of verdicts helps or hurts and of p_delong < 0.05 over test sets, 3 images a lesion."""
    rng = np.random.default_rng(seed)
    rows = []
    for at in range(replicates):
        drawn = draw(rng, malignant_groups, "3")
        rows.append(compare(drawn, replicates=bootstrap, seed=at))
    verdicts = [
        statistics.verdict(
            row["delta_auc"], row["p_bootstrap"], row["ci90_low"], row["ci90_high"], row["margin"]
        )
        in ("helps", "hurts")
        for row in rows
    ]
    return np.mean(verdicts), np.mean([row["p_delong"] < 0.05 for row in rows])


def test_type_one_error_with_three_images_a_lesion():
    """600 test sets: 7.6% is 3 sd above 5%; DeLong must fail, or the test could not tell."""
    verdicts, delong = false_alarms(30, 600, 499, seed=11)
    assert 0.025 < verdicts < 0.076
    assert delong > 0.12


@pytest.mark.slow
@pytest.mark.parametrize("malignant_groups", [20, 40, 80])
def test_type_one_error_of_the_verdict_is_at_most_six_and_a_half_percent(malignant_groups):
    verdicts, delong = false_alarms(malignant_groups, 4000, 999, seed=13)
    assert verdicts <= 0.065
    assert delong > 0.12


@pytest.mark.slow
def test_power_at_the_stated_mde_is_four_fifths():
    rng = np.random.default_rng(17)
    mde = np.mean([compare(draw(rng, 60, "3"), replicates=99)["mde"] for _ in range(100)])
    found = [compare(draw(rng, 60, "3", delta=mde))["p_bootstrap"] < 0.05 for _ in range(1000)]
    assert math.isclose(np.mean(found), 0.8, abs_tol=0.06)


def test_mde_of_a_known_standard_error():
    assert statistics.detectable(0.01**2) == pytest.approx((1.95996 + 0.84162) * 0.01, rel=1e-4)
