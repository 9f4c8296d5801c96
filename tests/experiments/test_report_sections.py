"""What clinicians, statisticians and papers find in the report of an experiment."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from experiment_folders import (
    comparisons,
    experiment,
    gan_seed,
    page_of,
    section,
    words_of,
    write_experiment,
)
from PIL import Image


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return page_of(write_experiment(tmp_path_factory.mktemp("exp") / "ham-quick"))


def operating(arm, threshold, sensitivity, specificity):
    """What an arm reaches at a threshold."""
    names = ("sensitivity", "specificity")
    rates = {
        name: {"value": value, "low": value - 0.05, "high": value + 0.04}
        for name, value in zip(names, (sensitivity, specificity), strict=True)
    }
    counts = {"n_models": 3, "n": 412, "n_malignant": 58, "n_groups": 310}
    counts |= {"n_malignant_groups": 44}
    return {"arm": arm, "test_set": "test", "threshold": threshold, **counts, **rates}


def test_a_clinician_reads_counts_of_lesions_at_three_prevalences(tmp_path):
    content = experiment(("test",))
    content["operating"] = [
        operating("real", "sensitivity_95", 0.9, 0.8),
        operating("synthetic", "sensitivity_95", 0.94, 0.75),
        operating("real", "youden", 0.85, 0.85),
    ]
    page = page_of(write_experiment(tmp_path / "e", ("test",), experiment=content))
    words = section(page, "for-patients")
    assert "at a prevalence of 14.1%, that of the test images: 141 of 1,000 are malignant" in words
    assert "at a prevalence of 1.0%: 10 of 1,000 are malignant" in words
    ten = words[words.index("at a prevalence of 10.0%: 100 of 1,000 are malignant") :]
    assert "real 90.0 [85.0, 94.0] 10.0 [6.0, 15.0] 180 [144, 225] 0.333 [" in ten
    assert "synthetic 94.0 [89.0, 98.0] 6.0 [2.0, 11.0] 225 [189, 270] 0.295 [" in ten
    assert "real test Youden's index on validation 3 0.850 [0.800, 0.890]" in words
    assert "412 58 310 44" in words


def test_an_old_record_says_that_it_has_no_operating_points(page):
    assert "No operating points were recorded: run the experiment again with --resume" in section(
        page, "for-patients"
    )


def test_mistakes_are_shown_with_their_diagnosis(tmp_path):
    content = experiment(("test",))
    one = {"file": "mistakes/00.jpg", "image_id": "ISIC_1", "diagnosis": "seborrheic_keratosis"}
    one |= {"target": 0, "wrong": 9, "n_models": 15, "wrong_reference": 0, "n_models_reference": 5}
    content["mistakes"] = [one, one | {"target": 1, "diagnosis": "mel"}]
    (tmp_path / "e" / "mistakes").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "e" / one["file"])
    page = page_of(write_experiment(tmp_path / "e", ("test",), experiment=content))
    words = section(page, "for-patients")
    assert "Missed: malignant that is not called so. mel: melanoma wrong by 9 of 15" in words
    assert "seborrheic keratosis wrong by 9 of 15; reference 0 of 5 ISIC_1" in words
    assert "data:image/jpeg;base64," in page


def test_subgroups_with_few_are_in_the_table_and_not_drawn(page):
    start = page.index('<h2 id="by-subgroup"')
    drawn = page[start : page.index("<table", start)]
    assert "female, sex" in drawn
    assert "dark" not in drawn
    assert "1 of 2 subgroups are in the table only" in words_of(drawn)


def test_a_statistician_finds_flow_missing_data_and_the_plan(tmp_path):
    content = experiment(("test",))
    content["dataset"]["info"] |= {"rows": 8100, "dropped": {"unreadable file": ["a", "b"]}}
    content["dataset"]["info"]["counts"]["images"] = 8007
    part = {"images": 412, "malignant": 58, "groups": 310, "lesions": 300, "patients": 0}
    part |= {"without_lesion": 7, "without_patient": 412, "missing": {"age": 31, "sex": 0}}
    content["parts"] = {"test": part}
    sha = "ab" * 32
    content["plan"] = {"made": "2026-03-02T14:00:00+00:00", "design_sha256": sha, "visible": None}
    page = page_of(write_experiment(tmp_path / "e", ("test",), experiment=content))
    words = section(page, "who-was-studied")
    assert "rows of the source's table 8,100 rows dropped: unreadable file 2 images" in words
    assert "kept 8,007 images" in words
    assert "test 412 58 310 0 300 412 7" in words
    assert "age 31 sex 0" in words
    words = section(page, "design")
    assert "written down on 2026-03-02T14:00:00+00:00, before anything was trained; SHA" in words
    assert sha in words
    assert "3 comparisons: 1 primary, 2 secondary." in words


def test_every_table_has_its_csv(page):
    saved = dict(re.findall(r'download="([^"]*)\.csv" href="data:text/csv[^,]*,([^"]*)"', page))
    assert {"all-comparisons", "metrics", "trials", "pairs-of-trainings"} <= set(saved)
    text = base64.b64decode(saved["all-comparisons"]).decode("utf-8-sig")
    table = pd.read_csv(io.StringIO(text))
    assert table["delta_auc"].tolist() == [c["delta_auc"] for c in comparisons()]
    assert table["n_trainings"].tolist() == [15] * 5
    assert table["verdict"].tolist() == [c["verdict"] for c in comparisons()]
    text = base64.b64decode(saved["pairs-of-trainings"]).decode("utf-8-sig")
    pairs = pd.read_csv(io.StringIO(text))
    assert len(pairs) == 5 * 15
    assert sorted(pairs["GAN seed"].unique()) == [0, 1, 2]
    text = base64.b64decode(saved["comparisons"]).decode("utf-8-sig")
    table = pd.read_csv(io.StringIO(text))
    assert table["comparison"][0] == "synthetic against real on test"
    of_one = next(column for column in table if column.endswith(" groups"))
    for column, key in (
        *(("AUC of arm", "auc_arm"), ("AUC of reference", "auc_reference")),
        *(("difference", "delta_auc"), ("95% interval low", "ci_low"), ("verdict", "verdict")),
        *(("family", "family"), ("margin", "margin"), ("images", "n"), ("groups", "n_groups")),
        *((of_one, "n_malignant_groups"), ("pairs of trainings", "n_trainings")),
    ):
        values = [np.nan if c[key] is None else c[key] for c in comparisons()]
        if isinstance(values[0], float):
            assert table[column].tolist() == pytest.approx(values, abs=0.00051, nan_ok=True)
        else:
            assert table[column].tolist() == values
    text = base64.b64decode(saved["beside-the-auc"]).decode("utf-8-sig")
    table = pd.read_csv(io.StringIO(text))
    assert table["metric"].nunique() < len(table) == 10  # "specificity there" stands thrice
    c = comparisons()[0]
    pair = f"{c['arm']} against {c['reference']} on {c['test_set']}"
    of_arm, of_reference = (table[f"{c[one]}, {pair}"] for one in ("arm", "reference"))
    assert np.allclose(of_arm - of_reference, table[pair], atol=0.0016)  # rounded thrice
    assert (table[f"95% interval, {pair} low"] < table[f"95% interval, {pair} high"]).all()


def test_how_much_each_arm_expects_is_shown_beside_what_it_trained_on(page):
    words = section(page, "synthetic-images")
    assert "Do they count as real ones?" in words
    assert "real test 11.1% 13.9% 14.1% synthetic test 30.0% 13.7% 14.1%" in words


def test_what_is_zero_is_shown(tmp_path):
    content = experiment(("test",))
    content["config"] |= {"folds": 0, "classifier": {"dropout": 0.0, "frozen": 0}}
    content["gan"] = [gan_seed(0) | {"kimg": 0.016, "seconds": 0.0}]
    content["gan"][0]["generator"] |= {"seed": 0, "test_fold": 0, "penalty": 0.0, "ema": False}
    content["seconds"] = 0.0
    page = page_of(write_experiment(tmp_path / "e", ("test",), experiment=content))
    made = section(page, "how-it-was-made")
    for said in ("folds: 0", "dropout: 0.0", "frozen: 0", "whole experiment 0.0 s"):
        assert said in made
    images = section(page, "synthetic-images")
    for said in ("fold 0", "seed 0", "test_fold 0", "penalty 0.0", "ema no"):
        assert said in images
    assert "real images shown in training repeats count 16" in images
    assert "training time 0.0 s" in images
    assert "trained for 0.0 s" in words_of(page)
    real = section(page, "real-and-synthetic-lesions")
    assert "seed 0, after 16 real images shown" in real


def test_a_pool_from_elsewhere_has_no_seed(tmp_path):
    content = experiment(("test",))
    content["gan"] = [gan_seed(0) | {"seed": None, "kimg": None, "seconds": None, "run": "p/mine"}]
    page = page_of(write_experiment(tmp_path / "e", ("test",), experiment=content))
    assert "Synthetic. p/mine. KID" in section(page, "real-and-synthetic-lesions")
    assert "None" not in words_of(page)


def test_a_smoke_run_cannot_be_taken_for_a_result(tmp_path, page):
    content = experiment(("test",))
    content["config"]["smoke"] = True
    smoke = page_of(write_experiment(tmp_path / "e", ("test",), experiment=content))
    assert smoke.index("Smoke run.") < smoke.index('class="verdict"')
    assert "Smoke run." not in page


def test_inconclusive_is_explained_under_the_verdict(page):
    head = words_of(page[page.index('class="verdict"') : page.index("</header>")])
    assert "a gain of 0.018 AUC or a loss of 0.019 AUC is found in four of five such" in head
    assert head.index("Inconclusive: ") < head.index("Inconclusive means that")


def test_a_paper_finds_its_paragraphs_and_table(page):
    words = section(page, "for-a-paper")
    assert "The primary comparison was synthetic against real in AUC" in words
    assert "The labels are those of the source; this software did not check" in words
    assert r"\begin{tabular}" in words
    assert "CLAIM 2024 and TRIPOD+AI checklist" in words
    assert "funding, its role, interests 44 18a, 18b – yours to write" in words


def test_pools_and_shortcuts_stand_in_the_order_of_the_arms(tmp_path):
    asked = {"fold": 0, "gan_seed": 0, "auc": 0.9, "reference": "real", "n_synthetic": 100}
    arms = ("synthetic50", "synthetic100")
    labels = [asked | {"arm": arm, "auc_real": 0.85} for arm in arms]
    shortcuts = [asked | {"arm": arm, "auc_reference": 0.6} for arm in arms]
    content = experiment(("test",)) | {"labels": labels, "shortcuts": shortcuts}
    words = words_of(page_of(write_experiment(tmp_path / "e", ("test",), experiment=content)))
    for start, row in (
        ("Do they look like malignant?", "{} real 0.90"),
        ('Is "synthetic" taken for', "{} its own generators 0.90"),
    ):
        table = words[words.index(start) :]
        first, second = (table.index(row.format(arm)) for arm in arms)
        assert first < second
