"""A comparison from scores to a verdict: known answers, properties, what cannot be decided."""

import json

import numpy as np
import pytest
from simulated import draw, sample, trained
from sklearn.metrics import roc_auc_score

from dermsynth.errors import UserError
from experiments import statistics
from experiments.records import ComparisonRecord


def compare(drawn, a, b, **options):
    options = {"replicates": 999} | options
    return statistics.compare("arm", "ref", "test", drawn.target, a, b, drawn.group, **options)


def both(drawn, seed=0, gans=1, seeds=3, **moves):
    """Scores of the arm and of the reference."""
    rng = np.random.default_rng(seed)
    return trained(drawn, drawn.a, gans, seeds, rng, **moves), trained(
        drawn, drawn.b, 1, seeds, rng
    )


def test_a_row_is_what_comparisons_json_holds():
    drawn = sample()
    a, b = both(drawn, gans=3)
    row = compare(drawn, a, b)
    record = ComparisonRecord(**row).model_dump(mode="json")
    made = {"made_by", "reference_made_by", "gate_failed", "reference_gate_failed"}
    assert {key: value for key, value in record.items() if key not in made} == row
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    of_arm = np.mean([roc_auc_score(drawn.target, score) for score in a.reshape(9, -1)])
    assert row["auc_arm"] == pytest.approx(of_arm)
    assert row["delta_auc"] == pytest.approx(row["auc_arm"] - row["auc_reference"])
    assert row["ci_low"] <= row["ci90_low"] <= row["delta_auc"] <= row["ci90_high"]
    assert row["ci_low"] <= row["ci_low_models"] < row["ci_high_models"] <= row["ci_high"]
    assert (row["n"], row["n_malignant"]) == (len(drawn.target), drawn.target.sum())
    assert (row["n_groups"], row["n_malignant_groups"]) == (240, 40)
    assert (row["n_seeds"], row["n_gan_seeds"], row["n_trainings"]) == (3, 3, 9)
    assert (row["scope"], row["family"], row["df_seeds"], row["df_gans"]) == (
        *("method", "primary"),
        *(2, 2),
    )
    single = [
        roc_auc_score(drawn.target, a[t["gan_seed"], t["seed"]])
        - roc_auc_score(drawn.target, b[0, t["seed"]])
        for t in row["trainings"]
    ]
    assert [t["delta_auc"] for t in row["trainings"]] == pytest.approx(single)


def test_same_seed_same_numbers_other_seed_other_numbers():
    drawn = sample()
    a, b = both(drawn)
    assert compare(drawn, a, b, seed=3) == compare(drawn, a, b, seed=3)
    assert compare(drawn, a, b, seed=3)["ci_low"] != compare(drawn, a, b, seed=4)["ci_low"]


def test_order_of_rows_and_names_of_groups_do_not_matter():
    drawn = sample()
    a, b = both(drawn)
    shuffled = np.random.default_rng(5).permutation(len(drawn.target))
    names = np.array([f"lesion-{number:04d}" for number in drawn.group])
    target, group = drawn.target[shuffled].astype(np.uint8), names[shuffled]
    scores = a[..., shuffled], b[..., shuffled]
    row = statistics.compare("arm", "ref", "test", target, *scores, group, replicates=999)
    expected = compare(drawn, a, b)
    one, other = (
        [training["delta_auc"] for training in each.pop("trainings")] for each in (row, expected)
    )
    assert one == pytest.approx(other)
    assert row.pop("folds_left_out") == expected.pop("folds_left_out")
    assert row == pytest.approx(expected)


def test_swapping_the_arms_mirrors_the_result():
    drawn = sample(delta=0.05)
    a, b = both(drawn)
    there, back = compare(drawn, a, b), compare(drawn, b, a)
    assert back["delta_auc"] == pytest.approx(-there["delta_auc"])
    assert back["ci_low"] == pytest.approx(-there["ci_high"])
    assert back["ci_low_models"] == pytest.approx(-there["ci_high_models"])
    assert back["p"] == pytest.approx(there["p"])
    assert back["se_groups"] == pytest.approx(there["se_groups"])


def test_identical_scores_are_equivalent_with_an_empty_interval():
    drawn = sample()
    scores = np.stack([drawn.a, drawn.b, drawn.a * 2])[None]
    row = compare(drawn, scores, scores)
    assert (row["delta_auc"], row["ci_low"], row["ci_high"]) == (0, 0, 0)
    assert (row["p"], row["p_models"], row["p_delong"], row["mde"]) == (1, 1, 1, 0)
    assert row["verdict"] == "equivalent"


def test_a_clear_difference_is_found_and_a_mirrored_one_hurts():
    drawn = sample(delta=0.1, malignant_groups=60)
    a, b = both(drawn)
    helps, hurts = compare(drawn, a, b), compare(drawn, b, a)
    assert (helps["verdict"], hurts["verdict"]) == ("helps", "hurts")
    assert helps["p"] < 0.05
    assert helps["ci_low"] > 0


def test_seeds_that_disagree_leave_open_what_these_models_show():
    """Each model's difference is beyond doubt, and the next seed's could be anything."""
    drawn = sample(malignant_groups=60)
    rng = np.random.default_rng(1)
    steady = trained(drawn, drawn.b, 1, 3, rng, noise=0.05)
    moves = np.array([0.0, 0.5, 1.0])[:, None] * drawn.target
    row = compare(drawn, steady + moves, steady)
    assert row["ci_low_models"] > 0
    assert row["p_models"] < 0.001
    assert row["verdict"] == "inconclusive"
    assert row["ci_low"] < 0


def test_one_seed_is_no_ground_for_a_verdict():
    drawn = sample(delta=0.1, malignant_groups=60)
    a, b = both(drawn, seeds=1)
    row = compare(drawn, a, b)
    assert row["verdict"] == "undecidable"
    assert "one classifier seed" in row["why_undecidable"]
    assert (row["ci_low"], row["p"], row["p_holm"], row["mde"]) == (None,) * 4
    assert row["ci_low_models"] > 0  # what these two models showed
    assert ComparisonRecord(**row)


def test_few_malignant_groups_are_flagged_and_one_proves_nothing():
    few = sample(malignant_groups=6)
    assert "Only 6 patients or lesions of target 1" in compare(few, *both(few))["note"]
    drawn = sample(malignant_groups=1)
    perfect = drawn.target[None, None].astype(float)
    one = compare(drawn, np.repeat(perfect, 2, axis=1), np.repeat(-perfect, 2, axis=1))
    assert one["verdict"] == "undecidable"
    assert "fewer than two patients or lesions" in one["why_undecidable"]
    assert (one["ci_low"], one["ci_low_models"], one["p"], one["mde"]) == (None,) * 4
    ten = sample(malignant_groups=10)
    assert compare(ten, *both(ten))["note"] is None


def test_where_no_auc_could_be_significant_no_verdict_was_possible():
    """Three malignant groups, two seeds that scatter."""
    rng = np.random.default_rng(0)
    drawn = draw(rng, 3, "4", auc=0.7)
    a, b = (trained(drawn, drawn.b, 1, 2, rng, seeds_move=2.0, noise=1.0) for _ in range(2))
    row = compare(drawn, a, b)
    assert (row["mde_helps"], row["mde_hurts"]) == (None, None)
    assert row["verdict"] == "undecidable"
    assert "no AUC differs" in row["why_undecidable"]


def test_the_number_of_replicates_does_not_decide():
    """With 99 replicates p was at least 0.02 once; it goes on with Student's quantiles now."""
    drawn = sample(delta=0.1, malignant_groups=60)
    a, b = both(drawn, seeds=6, noise=0.2)
    few, many = (compare(drawn, a, b, replicates=count) for count in (99, 9999))
    assert few["p"] < 0.002
    assert few["p_models"] < 1e-4
    assert np.log(few["p"]) == pytest.approx(np.log(many["p"]), rel=0.25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": np.zeros(6)}, "0 images of target 1 among 6"),
        ({"target": np.ones(6)}, "6 images of target 1 among 6"),
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


def test_more_seeds_are_no_larger_ensemble():
    """AUCs of single models are averaged; averaged scores would look better for no reason."""
    drawn = sample(malignant_groups=60)
    rng = np.random.default_rng(2)
    a, b = (trained(drawn, drawn.b, 1, 20, rng, noise=1.0) for _ in range(2))
    row = compare(drawn, a, b)
    alone = [roc_auc_score(drawn.target, scores) for scores in a[0]]
    assert row["auc_arm"] == pytest.approx(np.mean(alone))
    assert roc_auc_score(drawn.target, a.mean(axis=(0, 1))) > row["auc_arm"] + 0.05


# --- families and the verdict ---------------------------------------------------------------------


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


def compared(seed, test_set="test", seeds=3):
    """A comparison before its family is known."""
    from experiments.statistics.resamples import Resamples
    from experiments.statistics.trainings import Images, from_cubes

    drawn = sample(seed, delta=0.04)
    images = Images.of(drawn.target, drawn.group, "")
    folds = [from_cubes(images, *both(drawn, seed, seeds=seeds), "")]
    names = statistics.Names("arm", "ref", test_set)
    return statistics.difference(names, folds, False, 0.01, Resamples(499))


def test_the_first_comparison_is_alone_and_the_others_are_two_families():
    sets = ["test"] * 3 + ["external/a"] * 2 + ["external/b"]
    rows = statistics.finish([compared(seed, name) for seed, name in enumerate(sets)])
    assert [row["family"] for row in rows] == [
        *("primary", "secondary", "secondary"),
        *("external-primary", "external-secondary", "external-secondary"),
    ]
    for at in (0, 3):
        assert rows[at]["p_holm"] == rows[at]["p"]
        assert rows[at]["mde_level"] == 0.05
    for members in ((1, 2), (4, 5)):
        p = [rows[at]["p"] for at in members]
        assert [rows[at]["p_holm"] for at in members] == pytest.approx(statistics.holm(p))
        assert [rows[at]["mde_level"] for at in members] == [0.025, 0.025]
    alone = statistics.finish([compared(1)])[0]
    assert alone["mde"] < rows[1]["mde"]  # the same comparison, tested at 5% and at 2.5%


def test_what_cannot_be_decided_costs_the_others_nothing():
    rows = statistics.finish([compared(0), compared(1, seeds=1), compared(2)])
    assert rows[1]["p_holm"] is None
    assert rows[2]["p_holm"] == rows[2]["p"]


def test_real_images_under_two_names_help_about_as_often_as_chance_would_have_it():
    """40 repeats, a population scatter of 0.01 AUC, 5 seeds: one is due, four are too many."""
    helped, rng = 0, np.random.default_rng(2026)
    by_auc = 0.01 / 0.165  # of the malignant images' mean: d AUC / d mean at an AUC of 0.85
    for _ in range(40):
        drawn = draw(rng, 40, "1")
        one, other = (trained(drawn, drawn.b, 1, 5, rng, seeds_move=by_auc) for _ in range(2))
        helped += compare(drawn, one, other)["verdict"] == "helps"
    assert helped <= 3


def test_the_smallest_visible_difference_does_not_follow_what_was_observed():
    """Help that is plain to see, and harm likewise, leave it where it is without a difference."""
    stated = {}
    for delta in (-0.12, 0.0, 0.08):
        drawn = sample(seed=4, malignant_groups=120, delta=delta)
        row = compare(drawn, *both(drawn, seed=4, seeds=5))
        stated[delta] = row["mde_helps"], row["mde_hurts"]
        if delta:
            assert abs(row["delta_auc"]) > 1.5 * max(stated[delta])
    for helps, hurts in stated.values():
        assert helps == pytest.approx(stated[0.0][0], rel=0.35)
        assert hurts == pytest.approx(stated[0.0][1], rel=0.35)
