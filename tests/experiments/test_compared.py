"""From tables of predictions to comparisons: folds, missing trainings, external sets, subgroups."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from classifier.evaluation.calibration import fit_temperature, scale
from classifier.evaluation.operating_points import choose_thresholds
from dermsynth.errors import UserError
from experiments.compared import check_alike, compare_arms, roc_bands, trial_predictions
from experiments.metric_differences import metric_differences
from experiments.records import ComparisonRecord, PairedRecord

PAIRS = [["synthetic", "real"], ["doubled", "real"], ["synthetic", "doubled"]]
ARMS = {"real": [None], "doubled": [None], "synthetic": [0, 1, 2]}
PARTS = {"val": 60, "test": 80, "external/clinic": 90}


def images(part, fold, folds):
    """Ids, groups and targets; an external set is the same for all folds."""
    seed = 100 if part.startswith("external") else fold + 10 * (part == "val")
    rng = np.random.default_rng(seed)
    n = PARTS[part] + (0 if part.startswith("external") else 4 * fold)
    names = [f"{part}-{seed}-{number}" for number in range(n)]
    group = [f"{part}-{seed}-{number // 2}" for number in range(n)]
    target = (rng.random(n) < 0.4).astype(int)
    return pd.DataFrame({"image_id": names, "group": group, "fold": -1, "target": target}), rng


def trials(folds=1, seeds=(0, 1, 2), arms=ARMS, better=0.6):
    """What `trial_predictions` takes: probabilities of models, `better` in the synthetic arm."""
    for fold in range(folds):
        for part_of, gans in arms.items():
            for gan in gans:
                for seed in seeds:
                    frames = []
                    for part in PARTS:
                        rows, rng = images(part, fold, folds)
                        common = rng.normal(size=len(rows))
                        own = np.random.default_rng([fold, seed, len(part_of), gan or 0])
                        gain = 1.0 + (better if part_of == "synthetic" else 0)
                        logits = common + 0.4 * own.normal(size=len(rows)) + gain * rows["target"]
                        frames.append(rows.assign(part=part, score=1 / (1 + np.exp(1 - logits))))
                    yield part_of, fold, seed, gan, pd.concat(frames)


def planned_of(predictions):
    return predictions[["arm", "fold", "seed", "gan_seed"]].drop_duplicates()


def compared(predictions, planned=None, pairs=PAIRS):
    planned = planned_of(predictions) if planned is None else planned
    return compare_arms(predictions, pairs, planned, {"synthetic"}, 0.01, 1000)


@pytest.fixture(scope="module")
def rotated():
    predictions = trial_predictions(trials(folds=3))
    return predictions, compared(predictions)


def auc_of(predictions, arm, fold, seed, gan, part="test"):
    chosen = predictions.query("arm == @arm and fold == @fold and seed == @seed")
    chosen = chosen[(chosen["test_set"] == part)]
    chosen = chosen[chosen["gan_seed"].isna() if gan is None else chosen["gan_seed"].eq(gan)]
    return roc_auc_score(chosen["target"], chosen["score"])


def test_rotated_folds_weigh_by_pairs_and_never_mix_models(rotated):
    predictions, rows = rotated
    assert [ComparisonRecord(**row).test_set for row in rows] == [
        *["test"] * 3,
        *["external/clinic"] * 3,
    ]
    row = rows[0]
    weights, means = [], []
    for fold in range(3):
        target = images("test", fold, 3)[0]["target"]
        weights.append(target.sum() * (1 - target).sum())
        means.append(
            np.mean(
                [
                    auc_of(predictions, "synthetic", fold, seed, gan)
                    - auc_of(predictions, "real", fold, seed, None)
                    for seed in range(3)
                    for gan in range(3)
                ]
            )
        )
    assert row["delta_auc"] == pytest.approx(np.average(means, weights=weights))
    assert (row["n_folds"], row["n_trainings"], row["left_out"]) == (3, 27, 0)
    assert (row["df_seeds"], row["df_gans"], row["scope"]) == (6, 6, "method")
    assert row["n"] == 80 + 84 + 88
    assert {t["fold"] for t in row["trainings"]} == {0, 1, 2}
    assert [r["family"] for r in rows] == [
        *("primary", "secondary", "secondary"),
        *("external-primary", "external-secondary", "external-secondary"),
    ]
    assert [r["scope"] for r in rows[:3]] == ["method", "arms", "method"]


def test_an_external_set_is_one_set_of_images_for_the_models_of_all_folds(rotated):
    predictions, rows = rotated
    row = rows[3]
    assert row["n"] == 90
    expected = [
        auc_of(predictions, "synthetic", fold, seed, gan, "external/clinic")
        - auc_of(predictions, "real", fold, seed, None, "external/clinic")
        for fold in range(3)
        for seed in range(3)
        for gan in range(3)
    ]
    assert row["delta_auc"] == pytest.approx(np.mean(expected))
    assert row["df_seeds"] == 6
    alone = compared(trial_predictions(trials(folds=1)))[3]
    # three times the models on the same images: less of their own noise, as much of the images'
    assert 0.4 < row["se_groups"] / alone["se_groups"] < 1.0


def test_missing_trainings_are_left_out_in_pairs_and_counted():
    predictions = trial_predictions(trials(folds=2))
    planned = planned_of(predictions)
    lost = predictions.query("arm == 'real' and fold == 1 and seed == 2").index
    row = compared(predictions.drop(lost), planned)[0]
    assert (row["n_trainings"], row["left_out"], row["folds_left_out"]) == (15, 3, [])
    assert not any(t["fold"] == 1 and t["seed"] == 2 for t in row["trainings"])
    assert "3 planned pairs of trainings are missing" in row["note"]
    assert row["verdict"] != "undecidable"
    gone = predictions.query("arm == 'real' and fold == 1").index
    row = compared(predictions.drop(gone), planned)[0]
    assert (row["n_folds"], row["folds_left_out"], row["left_out"]) == (1, [1], 9)
    assert "Fold 1 left out" in row["note"]


def test_an_arm_that_never_finished_gets_no_verdict_and_harms_no_other():
    predictions = trial_predictions(trials())
    rest = predictions[predictions["arm"] != "doubled"]
    rows = compared(rest, planned_of(predictions))
    assert rows[1]["verdict"] == "undecidable"
    assert rows[1]["delta_auc"] is None
    assert "finished trainings of both arms" in rows[1]["why_undecidable"]
    assert ComparisonRecord(**rows[1]).n == 0
    full = compared(predictions)
    assert rows[0]["delta_auc"] == full[0]["delta_auc"]
    records = metric_differences(rest, rows, pd.DataFrame())
    assert [(r.arm, r.test_set) for r in records] == [
        ("synthetic", "test"),
        ("synthetic", "external/clinic"),
    ]


@pytest.mark.parametrize(
    ("gans", "scope"), [([0], "pool"), ([0, 1], "pool"), ([0, 1, 2], "method")]
)
def test_a_word_about_the_method_takes_three_generators(gans, scope):
    arms = {"real": [None], "synthetic": gans}
    row = compared(trial_predictions(trials(arms=arms)), pairs=PAIRS[:1])[0]
    assert (row["scope"], row["n_gan_seeds"]) == (scope, len(gans))
    assert (row["se_gans"] is not None) == (scope == "method")


def test_two_generators_in_each_of_two_folds_are_more_than_three():
    arms = {"real": [None], "synthetic": [0, 1]}
    row = compared(trial_predictions(trials(folds=2, arms=arms)), pairs=PAIRS[:1])[0]
    assert (row["scope"], row["df_gans"]) == ("method", 2)


def test_a_fold_of_one_class_is_left_out():
    predictions = trial_predictions(trials(folds=2))
    of_fold = (predictions["fold"] == 1) & (predictions["test_set"] == "test")
    predictions.loc[of_fold, "target"] = 0
    row = compared(predictions)[0]
    assert (row["n_folds"], row["folds_left_out"]) == (1, [1])


def test_scores_that_are_no_numbers_are_refused():
    predictions = trial_predictions(trials())
    predictions.loc[predictions["test_set"] == "test", "score"] = np.nan
    with pytest.raises(UserError, match="scores of test are not finite"):
        compared(predictions)


def test_an_image_tested_in_two_folds_is_refused():
    predictions = trial_predictions(trials(folds=2, arms={"real": [None]}))
    check_alike(predictions)
    with pytest.raises(UserError, match="is in the test parts of two folds"):
        check_alike(predictions.replace("test-1-0", "test-0-0"))


def test_roc_bands_are_of_every_arm_and_set(rotated):
    predictions, rows = rotated
    bands = roc_bands(predictions[predictions["arm"] != "doubled"])
    assert set(bands) == {"test", "external/clinic"}
    assert set(bands["test"]) == {"real", "synthetic"}
    assert bands["test"]["synthetic"]["auc"] == pytest.approx(rows[0]["auc_arm"])


def test_metrics_use_each_trainings_own_validation(rotated):
    """Average precision, sensitivity and Brier score of one fold's trainings, by hand."""
    predictions = trial_predictions(trials(arms={"real": [None], "synthetic": [0, 1, 2]}))
    rows = compared(predictions, pairs=PAIRS[:1])
    record = metric_differences(predictions, rows, pd.DataFrame())[0]
    assert PairedRecord(**record.model_dump()) == record
    found = {metric.name: metric for metric in record.metrics}
    expected = {"average_precision": [], "sensitivity_at_specificity_95": [], "brier": []}
    for seed in range(3):
        of_seed = predictions[predictions["seed"] == seed]
        for gan in range(3):
            values = []
            for arm, generator in (("synthetic", gan), ("real", None)):
                chosen = of_seed[of_seed["arm"] == arm]
                if generator is not None:
                    chosen = chosen[chosen["gan_seed"].eq(generator)]
                val, test = (chosen[chosen["test_set"] == part] for part in ("val", "test"))
                temperature = fit_temperature(val["target"].to_numpy(), val["score"].to_numpy())
                own = scale(val["score"].to_numpy(), temperature)
                threshold = choose_thresholds(val["target"].to_numpy(), own)["specificity_95"]
                score, target = scale(test["score"].to_numpy(), temperature), test["target"]
                values.append(
                    [
                        average_precision_score(target, score),
                        (score[target == 1] >= threshold).mean(),
                        ((score - target) ** 2).mean(),
                    ]
                )
            for name, difference in zip(expected, np.subtract(*values), strict=True):
                expected[name].append(difference)
    for name, differences in expected.items():
        assert found[name].delta == pytest.approx(np.mean(differences))
        assert found[name].ci_low < found[name].delta < found[name].ci_high
    assert len(record.decision_curve) == 11
    low, high = record.decision_curve[0], record.decision_curve[-1]
    assert (low.threshold, high.threshold) == (0.02, 0.5)
    assert low.treat_all > high.treat_all


def test_subgroups_have_differences_of_their_own_images(rotated):
    predictions, rows = rotated
    ids = predictions.loc[predictions["test_set"] == "test", "image_id"].unique()
    number = np.array([int(name.split("-")[-1]) for name in ids])
    sex = np.where(number % 4 < 2, "female", "male")  # groups are two images
    sex = np.where(number < 2, "unknown", sex)
    table = pd.DataFrame({"sex": sex}, index=pd.Index(ids, name="image_id"))
    record = metric_differences(predictions, rows, table)[0]
    by_name = {subgroup.name: subgroup for subgroup in record.subgroups}
    assert set(by_name) == {"female", "male", "unknown"}
    assert sum(subgroup.n for subgroup in by_name.values()) == len(ids)
    assert by_name["unknown"].delta_auc is None
    assert by_name["unknown"].few
    assert not by_name["female"].few
    female = predictions[predictions["image_id"].isin(ids[sex == "female"])]
    weights = [
        (lambda t: t.sum() * (1 - t).sum())(rows_["target"])
        for _, rows_ in female[["image_id", "fold", "target"]].drop_duplicates().groupby("fold")
    ]
    means = [
        np.mean(
            [
                auc_of(female, "synthetic", fold, seed, gan)
                - auc_of(female, "real", fold, seed, None)
                for seed in range(3)
                for gan in range(3)
            ]
        )
        for fold in range(3)
    ]
    assert by_name["female"].delta_auc == pytest.approx(np.average(means, weights=weights))
    assert by_name["female"].ci_low < by_name["female"].delta_auc < by_name["female"].ci_high
