"""Age, sex and site beside the image."""

import dataclasses

import numpy as np
import pytest

from classifier.model.metadata_inputs import load_metadata_inputs
from classifier.options import TrainOptions
from classifier.run_folder import open_run
from classifier.targets import BINARY
from classifier.training.training_set import build_training_set, fit_metadata
from data.store import write_dataset
from dermsynth.errors import UserError
from dermsynth.options import replace

OPTIONS = replace(TrainOptions(), head="metadata")


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
    share = synthetic / (synthetic + len(dataset.rows("train", 0)))
    return build_training_set(dataset, BINARY, replace(OPTIONS, synthetic=str(share)))


def test_synthetic_lesions_have_the_columns_of_malignant_people(people):
    training = listed(people, synthetic=25)
    inputs = fit_metadata(OPTIONS, people, training)
    assert inputs.width == 1 + 2 + 3
    table = people.table.iloc[inputs.training]
    assert (table["age"].to_numpy()[training.synthetic] == 70).all()
    assert len(set(inputs.training[training.synthetic])) > 5  # of many, not of one
    assert np.array_equal(inputs.training[: training.n_real], training.rows[: training.n_real])
    assert set(inputs.training) <= set(people.rows("train", 0))


def test_a_column_that_is_left_out_says_nothing(people):
    training = listed(people)
    options = replace(OPTIONS, metadata="sex, site")
    inputs = fit_metadata(options, people, training)
    numbers = inputs.numbers(people, np.arange(90))
    assert (numbers[:, 0] == 0).all()  # the age
    assert np.ptp(numbers[:, 1:], axis=0).min() == 1
    only = fit_metadata(replace(OPTIONS, metadata="age"), people, training)
    assert only.width == 1
    assert len(np.unique(only.numbers(people, np.arange(90)))) == 2


def test_what_is_saved_gives_the_same_numbers(people, tmp_path, seal_run):
    for metadata in ("age,sex,site", "sex"):
        inputs = fit_metadata(replace(OPTIONS, metadata=metadata), people, listed(people))
        inputs.save(tmp_path)
        seal_run(tmp_path)
        rows = np.arange(89, -1, -1)
        again = load_metadata_inputs(open_run(tmp_path)).numbers(people, rows)
        np.testing.assert_array_equal(again, inputs.numbers(people, rows))
    (tmp_path / "metadata.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match=r"metadata\.parquet: it is not what was written"):
        load_metadata_inputs(open_run(tmp_path))
    seal_run(tmp_path)
    with pytest.raises(UserError, match=r"metadata\.parquet: damaged, no parquet table"):
        load_metadata_inputs(open_run(tmp_path))


def test_validation_images_do_not_enter(people, tmp_path):
    before = fit_metadata(OPTIONS, people, listed(people)).numbers(people, people.rows("train", 0))
    table = people.table.copy()
    table.loc[people.rows("val", 0), "age"] = 99.0
    table.loc[people.rows("val", 0), "site"] = "moon"
    other = write_dataset(tmp_path / "other", np.asarray(people.images), table, {})
    after = fit_metadata(OPTIONS, other, listed(other)).numbers(other, other.rows("train", 0))
    np.testing.assert_array_equal(before, after)


def test_what_cannot_be_fused_is_refused(people, tiny):
    with pytest.raises(UserError, match="--metadata weight: expected some of age, sex, site"):
        fit_metadata(replace(OPTIONS, metadata="age,weight"), people, listed(people))
    table = people.table.assign(site=None)
    other = dataclasses.replace(people, table=table)
    with pytest.raises(UserError, match=r"no training image of .* has a value of site; leave it"):
        fit_metadata(OPTIONS, other, listed(other))
    kept = replace(OPTIONS, metadata="age,sex")
    assert fit_metadata(kept, other, listed(other)).width == 3
