"""Age, sex and site beside the image."""

import dataclasses

import numpy as np
import pytest

from classifier.model.fusion import load_fusion
from classifier.options import TrainOptions
from classifier.targets import BINARY
from classifier.training import training_set
from classifier.training.metadata_inputs import fit_fusion
from data.store import write_dataset
from dermsynth.errors import UserError

OPTIONS = TrainOptions(head="metadata")


@pytest.fixture(scope="module")
def people(tmp_path_factory, make_table, make_images):
    """90 images; malignant ones are of people of 70, benign ones of people of 30."""
    targets = np.arange(90) % 3 == 0
    rng = np.random.default_rng(0)
    table = make_table(targets.astype(int), np.repeat(np.arange(45) % 3, 2)).assign(
        age=np.where(targets, 70.0, 30.0),
        sex=np.where(rng.random(90) < 0.2, None, np.where(rng.random(90) < 0.5, "male", "female")),
        site=rng.choice(["back", "face", "foot"], 90),
    )
    out = tmp_path_factory.mktemp("data") / "people"
    return write_dataset(out, make_images(targets, 16), table, {})


def listed(dataset, synthetic=0):
    rows = training_set.real_rows(dataset, 0, BINARY, 0, False, seed=0)
    return training_set.training_list(dataset, rows, BINARY, synthetic, 0, seed=0)


def test_synthetic_lesions_have_the_columns_of_malignant_people(people):
    training = listed(people, synthetic=25)
    fusion = fit_fusion(OPTIONS, people, training)
    assert fusion.width == 1 + 2 + 3
    table = people.table.iloc[fusion.training]
    assert (table["age"].to_numpy()[training.synthetic] == 70).all()
    assert len(set(fusion.training[training.synthetic])) > 5  # of many, not of one
    assert np.array_equal(fusion.training[: training.n_real], training.rows[: training.n_real])
    assert set(fusion.training) <= set(people.rows("train", 0))


def test_a_column_that_is_left_out_says_nothing(people):
    training = listed(people)
    options = dataclasses.replace(OPTIONS, metadata="sex, site")
    fusion = fit_fusion(options, people, training)
    numbers = fusion.of(people, np.arange(90))
    assert (numbers[:, 0] == 0).all()  # the age
    assert np.ptp(numbers[:, 1:], axis=0).min() == 1
    only = fit_fusion(dataclasses.replace(OPTIONS, metadata="age"), people, training)
    assert only.width == 1
    assert len(np.unique(only.of(people, np.arange(90)))) == 2


def test_what_is_saved_gives_the_same_numbers(people, tmp_path):
    for metadata in ("age,sex,site", "sex"):
        fusion = fit_fusion(dataclasses.replace(OPTIONS, metadata=metadata), people, listed(people))
        fusion.save(tmp_path)
        rows = np.arange(89, -1, -1)
        again = load_fusion(tmp_path).of(people, rows)
        np.testing.assert_array_equal(again, fusion.of(people, rows))
    (tmp_path / "metadata.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match=r"metadata\.parquet: missing or damaged"):
        load_fusion(tmp_path)


def test_validation_images_do_not_enter(people, tmp_path):
    before = fit_fusion(OPTIONS, people, listed(people)).of(people, people.rows("train", 0))
    table = people.table.copy()
    table.loc[people.rows("val", 0), "age"] = 99.0
    table.loc[people.rows("val", 0), "site"] = "moon"
    other = write_dataset(tmp_path / "other", np.asarray(people.images), table, {})
    after = fit_fusion(OPTIONS, other, listed(other)).of(other, other.rows("train", 0))
    np.testing.assert_array_equal(before, after)


def test_what_cannot_be_fused_is_refused(people, tiny):
    with pytest.raises(UserError, match="--metadata weight: expected some of age, sex, site"):
        fit_fusion(dataclasses.replace(OPTIONS, metadata="age,weight"), people, listed(people))
    table = people.table.assign(site=None)
    other = dataclasses.replace(people, table=table)
    with pytest.raises(UserError, match=r"no training image of .* has a value of site; leave it"):
        fit_fusion(OPTIONS, other, listed(other))
    kept = dataclasses.replace(OPTIONS, metadata="age,sex")
    assert fit_fusion(kept, other, listed(other)).width == 3
