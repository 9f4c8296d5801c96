"""Subgroups: who belongs where, and figures that a subset would give by itself."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from classifier.evaluation.intervals import UNDEFINED, Resampling, Scored, auc_figure
from classifier.evaluation.subgroups import age_bands, angles, labels, subgroups
from data.images.skin_tone import bands, ita


def rows_of(n=400, seed=0):
    rng = np.random.default_rng(seed)
    group = np.arange(n) // 2
    target = (group % 4 == 0).astype(int)
    return Scored.of(target, np.clip(rng.normal(0.4 + 0.2 * target, 0.2), 0, 1), group)


def table_of(**columns):
    n = len(next(iter(columns.values())))
    usual = {"sex": ["male"] * n, "age": [50.0] * n, "site": ["torso"] * n, "source": ["one"] * n}
    return pd.DataFrame(usual | columns)


def test_age_bands_begin_where_they_say():
    ages = pd.Series([0, 29, 29.9, 30, 44, 45, 59, 60, 74, 75, 85, None, -1])
    assert age_bands(ages).tolist() == [
        *["<30"] * 3,
        *["30-44"] * 2,
        *["45-59"] * 2,
        *["60-74"] * 2,
        *["75+"] * 2,
        *["unknown"] * 2,
    ]
    assert age_bands(pd.Series([40, None], dtype="Int64")).tolist() == ["30-44", "unknown"]


def test_what_is_missing_is_a_subgroup_of_its_own():
    table = table_of(sex=["male", None, "", " female ", "unknown"])
    found = labels(table, np.array([60.0, np.nan, 120.0, 20.0, -40.0]))
    assert found["sex"].tolist() == ["male", "unknown", "unknown", "female", "unknown"]
    assert found["skin_tone"].tolist() == ["very light", "unknown", "unknown", "tan", "dark"]
    assert list(found) == ["sex", "age", "site", "skin_tone"]  # one source only
    two = labels(table.assign(source=["a", "b", "a", "a", "a"]), None)
    assert list(two) == ["sex", "age", "site", "source"]


def test_skin_tone_is_that_of_the_images_asked_for():
    rng = np.random.default_rng(0)
    images = rng.integers(120, 220, (70, 32, 32, 3), dtype=np.uint8) // np.array(
        [1, 2, 3], np.uint8
    )
    chosen = np.array([69, 3, 65])
    expected = [ita(images[at]) for at in chosen]
    np.testing.assert_array_equal(angles(images, chosen), expected)
    assert len(angles(images, np.arange(70))) == 70
    assert bands(np.array(expected)).shape == (3,)


def test_a_subgroup_has_the_figures_of_its_images_alone():
    rows = rows_of()
    names = np.where(np.arange(400) % 3 == 0, "a", "b").astype(object)
    found = {
        line["name"]: line
        for line in subgroups(rows, {"site": names}, 0.5, Resampling(300, 0))["site"]
    }
    for name in ("a", "b"):
        part, line = names == name, found[name]
        assert line["n"] == part.sum()
        assert line["n_malignant"] == rows.target[part].sum()
        assert line["n_groups"] == len(np.unique(rows.group[part]))
        assert line["auc"]["value"] == pytest.approx(
            roc_auc_score(rows.target[part], rows.score[part])
        )
        called = rows.score[part] >= 0.5
        assert line["sensitivity"]["value"] == pytest.approx(called[rows.target[part]].mean())
        assert line["specificity"]["value"] == pytest.approx((~called)[~rows.target[part]].mean())
    everyone = subgroups(rows, {"site": np.full(400, "x", object)}, 0.5, Resampling(300, 0))["site"]
    assert everyone[0]["auc"] == auc_figure(rows, Resampling(300, 0))


def test_too_few_groups_give_numbers_and_no_figures():
    """Images count for nothing: 4 malignant lesions of 10 images are too few, 5 of one are not."""
    group = np.append(np.arange(4).repeat(10), np.arange(100, 130))
    target = np.append(np.ones(40, int), np.zeros(30, int))
    rows = Scored.of(target, np.linspace(0, 1, 70), group)
    names = np.full(70, "few", object)
    line = subgroups(rows, {"sex": names}, 0.5, Resampling(200, 0))["sex"][0]
    assert (line["n"], line["n_malignant"], line["n_malignant_groups"]) == (70, 40, 4)
    assert line["auc"] == line["sensitivity"] == UNDEFINED
    assert line["specificity"]["value"] is not None
    enough = Scored.of(target[35:], np.linspace(0, 1, 35), np.arange(35))
    line = subgroups(enough, {"sex": names[35:]}, None, Resampling(200, 0))["sex"][0]
    assert line["auc"]["value"] is not None
    assert line["sensitivity"] == UNDEFINED  # no threshold


def test_the_order_of_lines():
    rows = rows_of(40)
    site = np.array(["arm"] * 5 + ["unknown"] * 20 + ["leg"] * 15, object)
    age = np.array(["75+", "unknown", "<30", "45-59"] * 10, object)
    found = subgroups(rows, {"site": site, "age": age}, 0.5, Resampling(200, 0))
    assert [line["name"] for line in found["site"]] == ["leg", "arm", "unknown"]
    assert [line["name"] for line in found["age"]] == ["<30", "45-59", "75+", "unknown"]
