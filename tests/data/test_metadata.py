import numpy as np
import pandas as pd
import pytest

from data.metadata import MetadataEncoder


def people(count=200, seed=0, missing=0.3):
    """Rows with some of everything missing."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "image_id": [f"{seed}_{k}" for k in range(count)],
            "age": rng.integers(2, 18, count) * 5.0,
            "sex": rng.choice(["female", "male"], count, p=[0.25, 0.75]),
            "site": rng.choice(["torso", "head/neck", "lower extremity"], count),
        }
    )
    for column in ("age", "sex", "site"):
        table.loc[rng.random(count) < missing, column] = None
    return table


def test_known_answers():
    table = pd.DataFrame(
        {
            "image_id": ["a", "b", "c", "d"],
            "age": [40.0, 60.0, np.nan, 50.0],
            "sex": ["male", "female", None, "male"],
            "site": ["torso"] * 4,
        }
    )
    encoder = MetadataEncoder().fit(table)
    assert encoder.feature_names == ["age", "sex=female", "sex=male", "site=torso"]
    features = encoder.transform(table)
    assert features.dtype == np.float32
    spread = np.std([40, 60, 50, 50])
    age, female, male, torso = encoder.describe()
    assert age == {"name": "age", "mean": 50, "deviation": pytest.approx(spread)}
    assert female | {"share": None} == {
        **{"name": "sex=female", "column": "sex", "value": "female", "share": None}
    }
    assert [each["share"] for each in (female, male, torso)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert MetadataEncoder().fit(table.assign(age=None)).describe()[0]["always"] == 0
    assert features[:, 0] == pytest.approx((np.array([40, 60, 50, 50]) - 50) / spread)
    assert features[[0, 1, 3], 1:].tolist() == [[0, 1, 1], [1, 0, 1], [0, 1, 1]]
    assert features[2, 1:].tolist() in ([1, 0, 1], [0, 1, 1])


def test_missing_categories_are_drawn_by_their_frequency():
    train = people(20000)
    unknown = pd.DataFrame(
        {"image_id": [f"u{k}" for k in range(20000)], "age": np.nan, "sex": None, "site": None}
    )
    encoder = MetadataEncoder(seed=3).fit(train)
    drawn = encoder.transform(unknown)[:, 1:].mean(axis=0)
    shares = [
        (train[column].dropna() == value).mean()
        for column, value in (name.split("=") for name in encoder.feature_names[1:])
    ]
    assert drawn == pytest.approx(np.array(shares), abs=0.012)  # 3.4 standard errors
    assert np.corrcoef(encoder.transform(unknown)[:, [1, -1]].T)[0, 1] == pytest.approx(0, abs=0.03)
    other = MetadataEncoder(seed=4).fit(train).transform(unknown)
    assert (other != encoder.transform(unknown)).any()


def test_rows_encode_alone_and_in_any_order_as_together():
    table = people()
    encoder = MetadataEncoder(seed=1).fit(table)
    whole = encoder.transform(table)
    order = np.random.default_rng(0).permutation(len(table))
    assert (encoder.transform(table.iloc[order]) == whole[order]).all()
    alone = [encoder.transform(table.iloc[[row]]) for row in range(20)]
    assert (np.concatenate(alone) == whole[:20]).all()
    again = MetadataEncoder(seed=1).fit(table.iloc[order])
    assert again.transform(table) == pytest.approx(whole, abs=1e-6)


def test_validation_rows_cannot_influence_it():
    """Whatever the other rows hold, training rows encode alike; and the same rows fitted matter."""
    train, calm = people(seed=0), people(seed=1)
    wild = calm.assign(age=1e6, sex="neither", site=[f"site {k}" for k in range(len(calm))])
    wild["image_id"] = train["image_id"].to_numpy()

    def encode(validation):
        table = pd.concat([train, validation], ignore_index=True)
        encoder = MetadataEncoder().fit(table.iloc[: len(train)])
        before = encoder.transform(table.iloc[: len(train)])
        encoder.transform(table.iloc[len(train) :])
        after = encoder.transform(table.iloc[: len(train)])
        return encoder.feature_names, before, after

    (names, one, _), (other_names, other, after) = encode(calm), encode(wild)
    assert names == other_names
    assert (one == other).all()
    assert (other == after).all()
    leaky = MetadataEncoder().fit(pd.concat([train, wild]))
    assert leaky.feature_names != names


def test_unseen_categories_are_all_zeros():
    encoder = MetadataEncoder().fit(people())
    strange = people(3, missing=0).assign(sex="neither", site="palms/soles", age=50.0)
    features = encoder.transform(strange)
    assert np.isfinite(features).all()
    assert (features[:, 1:] == 0).all()


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA])
@pytest.mark.parametrize("columns", [["age"], ["sex"], ["site"], ["age", "sex", "site"]])
def test_columns_without_any_value(columns, nothing):
    train = people()
    for column in columns:
        train[column] = nothing
    encoder = MetadataEncoder().fit(train)
    features = encoder.transform(people(seed=5))
    assert features.shape == (200, len(encoder.feature_names))
    assert np.isfinite(features).all()
    assert not any(
        name.startswith(column + "=") for name in encoder.feature_names for column in columns
    )
    if "age" not in columns:
        assert features[:, 0].std() > 0.5


def test_missing_only_where_it_is_used():
    train = people(missing=0)
    encoder = MetadataEncoder().fit(train)
    blank = train.assign(age=np.nan, sex=None, site=pd.NA)
    features = encoder.transform(blank)
    assert features[:, 0] == pytest.approx(0, abs=1e-6)  # the mean age, standardised
    assert (features[:, 1:].sum(axis=1) == 2).all()


def test_pandas_strings_encode_as_plain_ones():
    table = people()
    encoder = MetadataEncoder().fit(table)
    nullable = table.astype({"sex": "string", "site": "string", "age": "Float64"})
    assert (encoder.transform(nullable) == encoder.transform(table)).all()
    assert (MetadataEncoder().fit(nullable).transform(table) == encoder.transform(table)).all()
