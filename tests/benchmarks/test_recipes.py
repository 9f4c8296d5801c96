"""Two columns of a recipe's figures: its own folds, and two fixed halves of another clinic."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import elsewhere, recipes
from classifier.blend import BlendOptions, blend
from data.store import COLUMNS, write_dataset
from dermsynth.errors import UserError


def predictions(seed=0, n=400):
    """Out of fold and external, two images a group; scores elsewhere are 0.2 lower."""
    rng = np.random.default_rng(seed)
    tables = []
    for part, shift in (("oof", 0.0), ("external/there", -0.2)):
        target = np.arange(n) // 2 % 4 == 0
        score = np.clip(0.3 + 0.35 * target + shift + rng.normal(0, 0.15, n), 0.001, 0.999)
        groups = [f"{part}{at // 2}" for at in range(n)]
        ids = [f"{part}-{at:03d}" for at in range(n)]
        columns = {"image_id": ids, "group": groups, "fold": 0, "part": part}
        tables.append(pd.DataFrame(columns | {"target": target.astype(int), "score": score}))
    return pd.concat(tables, ignore_index=True)


def test_halves_are_fixed_by_the_first_id_of_a_group_and_split_none():
    rows = predictions().query("part == 'external/there'")
    halves = pd.Series(elsewhere.half_of(rows), rows.index)
    assert halves.groupby(rows["group"]).agg(np.ptp).max() == 0
    assert 0.4 < halves.mean() < 0.6
    first = rows.iloc[6]["image_id"]
    assert halves.iloc[7] == hashlib.sha256(first.encode()).digest()[0] % 2
    shuffled = rows.sample(frac=1, random_state=1)
    assert (pd.Series(elsewhere.half_of(shuffled), shuffled.index) == halves[shuffled.index]).all()


def test_thresholds_of_validation_are_applied_as_they_are():
    found = elsewhere.measure(predictions())
    assert list(found["validation"]) == ["oof"]
    halves = found["elsewhere"]["there"]
    assert halves["tuned"]["n"] + halves["reported"]["n"] == 400
    own = found["validation"]["oof"]["at_validation_thresholds"]["sensitivity_95"]
    assert own["sensitivity"]["value"] >= 0.95
    for half in halves.values():
        there = half["at"]["sensitivity_95"]
        assert there["sensitivity"]["value"] < 0.85  # scores are lower there
        assert there["specificity"]["value"] > own["specificity"]["value"]
        assert half["auc"]["low"] < half["auc"]["value"] < half["auc"]["high"]
        assert half["ece"]["value"] > 0.05


def test_recipes_are_mixed_image_by_image():
    one, other = predictions(0), predictions(1).sample(frac=1, random_state=0)
    both = elsewhere.mixed([one, other])
    aligned = other.set_index(["image_id", "part"])["score"]
    expected = (one["score"] + aligned[list(zip(one["image_id"], one["part"], strict=True))]
                .to_numpy()) / 2  # fmt: skip
    np.testing.assert_allclose(both["score"], expected)
    with pytest.raises(ValueError, match="different images"):
        elsewhere.mixed([one, other.iloc[1:]])


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """90 images in three folds and 40 of another clinic, of three diagnoses."""
    folder = tmp_path_factory.mktemp("data")
    for name, n, folds in (("own", 90, 3), ("there", 40, 1)):
        table = pd.DataFrame({column: [""] * n for column in COLUMNS})
        numbers = np.arange(n)
        table = table.assign(
            image_id=[f"{name}{at}" for at in numbers],
            group=[f"{name}-g{at}" for at in numbers],
            sha256=[hashlib.sha256(f"{name}{at}".encode()).hexdigest() for at in numbers],
            diagnosis=np.array(["nv", "bkl", "mel"])[numbers % 3],
            target=(numbers % 3 == 2).astype(int),
            fold=numbers // 3 % folds if folds > 1 else -1,
        )
        images = np.random.default_rng(len(name)).integers(90, 200, (n, 32, 32, 3), dtype=np.uint8)
        images[numbers % 3 == 2, 8:24, 8:24] //= 3
        write_dataset(folder / name, images, table, {})
    return folder


@pytest.mark.slow
def test_two_recipes_and_their_mean_over_all_folds(datasets, tmp_path, monkeypatch, capsys):
    small = "--backbone vanilla-cnn --weights none --frozen 1 --size 32 --epochs 1 --batch 16"
    for name in ("own-clinic", "other-clinics"):
        monkeypatch.setitem(recipes.FITS, name, small)
    monkeypatch.setattr(recipes, "as_published", lambda *_: {})
    runs, out = tmp_path / "runs", tmp_path / "recipes.json"
    common = {"data": datasets / "own", "fold": "all", "external": (f"there={datasets / 'there'}",)}
    common |= {"runs": runs, "out": out}
    both = "own-clinic+other-clinics"
    with pytest.raises(UserError, match="is not finished; give --names own-clinic before it"):
        recipes.main(recipes.Options(names=(both,), **common))
    recipes.main(recipes.Options(names=("own-clinic",), **common))
    recipes.main(recipes.Options(names=("own-clinic", "other-clinics", both), **common))
    cells = {cell["recipe"]: cell for cell in json.loads(out.read_text())["cells"]}
    assert set(cells) == {"own-clinic", "other-clinics", both}
    for cell in cells.values():
        assert cell["parts"]["oof"]["auc"]["value"] is not None
        assert set(cell["elsewhere"]["there"]) == {"tuned", "reported"}
    assert "there: tuned " in capsys.readouterr().out
    config = runs / "other-clinics-foldall"
    assert "tta: clinics" in (config / "config.yaml").read_text()
    words = tuple(f"{name[:2]}={runs / name}-foldall" for name in ("own-clinic", "other-clinics"))
    for part, count in (("oof", 90), ("external/there", 40)):
        csv = tmp_path / f"{part.replace('/', '-')}.csv"
        record = blend(BlendOptions(csv, (words,), part, overwrite=True, tracking="none"))
        assert len(pd.read_csv(csv)) == count
        assert [one["weight"] for one in record["members"].values()] == [0.5, 0.5]
