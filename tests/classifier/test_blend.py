import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from classifier.blend import BlendOptions, blend
from classifier.evaluation.blending import auc, fit_weights, fold_auc, mix
from classifier.scores import guard, read_scores, unguard, write_scores
from data.store import seal_dataset
from dermsynth import cli
from dermsynth.errors import UserError
from dermsynth.files import sha256
from dermsynth.manifest import seal


def _predictions(targets, scores, folds, part):
    ids = [f"{part}{i}" for i in range(len(targets))]
    columns = {"image_id": ids, "group": ids, "fold": folds, "part": part}
    return pd.DataFrame(columns | {"target": targets, "score": scores})


def _save(run, frame):
    """Write a run's predictions, and finish its folder."""
    frame.to_parquet(run / "predictions.parquet")
    seal(run, "classifier-folds", {"predictions": sha256(run / "predictions.parquet")})


def _dataset(folder, table):
    """A dataset of tables alone, new or again."""
    folder.mkdir(exist_ok=True)
    seal_dataset(folder, table, {})


@pytest.fixture
def runs(tmp_path):
    """Runs a and b: 300 images out of fold and 60 to test on. 0.7 a + 0.3 b says it all."""
    rng = np.random.default_rng(0)
    oof, test = rng.random((300, 2)), rng.random((60, 2))
    for number, name in enumerate("ab"):
        frame = pd.concat(
            [
                _predictions(
                    (oof @ [0.7, 0.3] > 0.6) * 1, oof[:, number], np.arange(300) % 3, "oof"
                ),
                _predictions((test @ [0.7, 0.3] > 0.6) * 1, test[:, number], -1, "test"),
            ],
            ignore_index=True,
        )
        (tmp_path / name).mkdir()
        _save(tmp_path / name, frame)
    return tmp_path


@pytest.fixture
def csvs(tmp_path):
    """Two submissions of four images, in another order."""
    (tmp_path / "one.csv").write_text("image_name,target\nw,0.1\nx,0.9\ny,0.5\nz,0.3\n")
    (tmp_path / "two.csv").write_text("image_name,target\nz,0.8\ny,0.4\nx,0.6\nw,0\n")
    return tmp_path


def _blend(folder, *words, **options):
    """Blend with `{}` in the words standing for the folder; the record and the CSV's scores."""
    scores = (tuple(word.format(folder) for word in words),)
    options = {"out": folder / "out.csv", "overwrite": True} | options
    record = blend(BlendOptions(scores=scores, **options))
    found = pd.read_csv(options["out"], index_col="image_name")["target"]
    assert json.loads(options["out"].with_suffix(".json").read_text()) == record
    return record, found


def _change(run, part="oof", **values):
    """Change columns of a run's part in place."""
    path = run / "predictions.parquet"
    frame = pd.read_parquet(path)
    for column, value in values.items():
        frame.loc[frame["part"] == part, column] = value
    _save(run, frame)


def test_nine_parts_of_one_and_one_of_the_other(csvs):
    record, found = _blend(csvs, "image={}/one.csv:0.9", "age={}/two.csv:0.1")
    assert found.index.tolist() == ["w", "x", "y", "z"]
    np.testing.assert_allclose(found, [0.09, 0.87, 0.49, 0.35])
    assert {name: of["weight"] for name, of in record["members"].items()} == {
        "image": 0.9,
        "age": 0.1,
    }
    assert record["blend"]["auc"] is None


def test_six_image_models_and_a_metadata_model(tmp_path):
    """6 x 0.15 + 0.1, the mix of a published entry, is one command."""
    rng = np.random.default_rng(0)
    table = rng.random((5, 7))
    for number in range(7):
        rows = {"image_name": list("abcde"), "target": table[:, number]}
        pd.DataFrame(rows).to_csv(tmp_path / f"m{number}.csv", index=False)
    words = [f"m{number}={{}}/m{number}.csv:0.15" for number in range(6)]
    _, found = _blend(tmp_path, *words, "meta={}/m6.csv:0.1")
    np.testing.assert_allclose(found, table[:, :6].sum(axis=1) * 0.15 + table[:, 6] * 0.1)


def test_weights_are_divided_by_their_sum_and_alike_where_none_is_given(csvs):
    _, found = _blend(csvs, "a={}/one.csv:3", "b={}/two.csv:1")
    np.testing.assert_allclose(found["z"], 0.75 * 0.3 + 0.25 * 0.8)
    _, found = _blend(csvs, "a={}/one.csv", "b={}/two.csv")
    np.testing.assert_allclose(found["z"], 0.55)
    _, found = _blend(csvs, "a={}/one.csv:0", "b={}/two.csv:1")
    np.testing.assert_allclose(found["z"], 0.8)


def test_ranks_are_averaged_whatever_the_scale(csvs):
    one = pd.read_csv(csvs / "one.csv").assign(target=lambda t: t["target"] ** 9 * 1e6)
    one.to_csv(csvs / "huge.csv", index=False)
    _, found = _blend(csvs, "a={}/huge.csv", "b={}/two.csv", by="rank")
    np.testing.assert_allclose(found, [0.25, (1 + 0.75) / 2, (0.75 + 0.5) / 2, (0.5 + 1) / 2])


def test_out_of_fold_ranks_are_within_a_fold(runs):
    _, found = _blend(runs, "a={}/a", by="rank", part="oof")
    frame = pd.read_parquet(runs / "a" / "predictions.parquet").query("part == 'oof'")
    for fold in range(3):
        rows = frame[frame["fold"] == fold]
        np.testing.assert_allclose(found[rows["image_id"]], rankdata(rows["score"]) / 100)


def test_a_run_a_file_and_a_csv_mix_and_the_part_is_chosen(runs):
    frame = pd.read_parquet(runs / "a" / "predictions.parquet").query("part == 'test'")
    frame = frame.rename(columns={"image_id": "image_name"}).drop(columns="target")
    frame = frame.rename(columns={"score": "target"})[["image_name", "target"]].iloc[::-1]
    frame.to_csv(runs / "a.csv", index=False)
    words = ["a={}/a:0.9", "b={}/b/predictions.parquet:0.1"]
    record, found = _blend(runs, *words)
    assert len(found) == 60
    _, same = _blend(runs, "a={}/a.csv:0.9", words[1])
    np.testing.assert_allclose(same[found.index], found)
    assert len(_blend(runs, *words, part="oof")[1]) == 300
    oof = pd.read_parquet(runs / "a" / "predictions.parquet").query("part == 'oof'")
    expected = roc_auc_score(oof["target"], oof["score"])
    assert record["members"]["a"]["auc"] == pytest.approx(expected)
    assert record["members"]["a"]["auc"] < record["blend"]["auc"] < 1


def test_the_planted_weights_are_found_out_of_fold_and_used_on_the_test_part(runs, capsys):
    record, found = _blend(runs, "a={}/a", "b={}/b", by="search")
    weights = [of["weight"] for of in record["members"].values()]
    np.testing.assert_allclose(weights, [0.7, 0.3], atol=0.011)
    assert record["blend"]["auc"] > 0.9995
    assert 0.99 < record["blend"]["fold_auc_nested"] <= record["blend"]["fold_auc"]
    a, b = (pd.read_parquet(runs / name / "predictions.parquet") for name in "ab")
    test = a["part"] == "test"
    expected = weights[0] * a.loc[test, "score"] + weights[1] * b.loc[test, "score"]
    np.testing.assert_allclose(found, expected)
    said = capsys.readouterr().out
    assert "optimistic" in said
    assert f"{record['blend']['fold_auc_nested']:.4f} by those of the other folds" in said
    assert _blend(runs, "a={}/a", "b={}/b", fit_on="oof")[0] == record
    _change(runs / "a", "test", target=1)
    _change(runs / "b", "test", target=1)
    assert _blend(runs, "a={}/a", "b={}/b", by="search")[0]["blend"] == record["blend"]


@pytest.mark.parametrize("planted", [(0.5, 0.3, 0.2), (0, 0.9, 0.1), (0.25, 0.25, 0.5), (0, 0, 1)])
def test_the_search_recovers_a_planted_optimum_of_three(planted):
    rng = np.random.default_rng(1)
    columns = rng.random((1500, 3))
    targets = (columns @ planted > 0.55).astype(int)
    found = fit_weights(columns, targets)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    np.testing.assert_allclose(found, planted, atol=0.03)
    assert roc_auc_score(targets, columns @ found) > 0.9998


def test_a_member_that_knows_nothing_gets_no_weight():
    rng = np.random.default_rng(2)
    targets = rng.integers(0, 2, 1000)
    columns = np.column_stack([rng.random(1000), targets * 0.5 + rng.random(1000)])
    assert fit_weights(columns, targets)[0] < 0.15


def test_the_nested_figure_shows_what_fitting_noise_is_worth():
    """Weights of members that know nothing look good where they were found, and only there."""
    folds, fitted, nested = np.arange(90) % 3, [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        targets, columns = rng.integers(0, 2, 90), rng.random((90, 5))
        fitted.append(auc(targets, mix(columns, fit_weights(columns, targets))))
        nested.append(fold_auc(columns, targets, folds, None))
    assert np.mean(fitted) > 0.58
    assert np.mean(nested) == pytest.approx(0.5, abs=0.06)  # 3 standard errors
    by_hand = [], []
    everywhere = fit_weights(columns, targets)
    for fold in range(3):
        own = folds == fold
        for weights, values in zip(
            (fit_weights(columns[~own], targets[~own]), everywhere), by_hand, strict=True
        ):
            values.append(roc_auc_score(targets[own], columns[own] @ weights))
    assert fold_auc(columns, targets, folds, None) == pytest.approx(np.mean(by_hand[0]))
    assert fold_auc(columns, targets, folds, everywhere) == pytest.approx(np.mean(by_hand[1]))
    assert fold_auc(columns, targets, np.zeros(90), None) is None
    assert fold_auc(columns, np.where(folds == 1, 0, targets), folds, None) is None


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
NAMES |= st.builds(str.__add__, st.sampled_from(list("=+-@\t\r'")), NAMES)


@settings(max_examples=100)
@given(st.dictionaries(NAMES, st.floats(0, 1), min_size=1))
def test_scores_are_safe_in_a_spreadsheet_and_read_back(tmp_path_factory, scores):
    path = tmp_path_factory.mktemp("csv") / "s.csv"
    write_scores(path, list(scores), np.array(list(scores.values())))
    read = read_scores(path)
    assert read["image_id"].tolist() == list(scores)
    assert read["score"].tolist() == list(scores.values())
    cells = pd.read_csv(path, dtype=str, keep_default_na=False)["image_name"]
    assert not cells.str.startswith(("=", "+", "-", "@", "\t", "\r")).any()


def test_which_names_get_a_quote_in_front():
    for name in ("=1+1", "+1", "-1", "@x", "\tx", "\rx", "'x", "'=x"):
        assert guard(name) == f"'{name}"
        assert unguard(guard(name)) == name
    for name in ("x", "x=1", " =1", "ISIC_1", ""):
        assert guard(name) == unguard(name) == name
    assert unguard("'x") == "'x"  # written by somebody else


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.9])), min_size=2))
def test_auc_is_that_of_scikit_learn_ties_included(rows):
    targets, scores = np.array([row[0] for row in rows]) * 1, np.array([row[1] for row in rows])
    if len(set(targets)) < 2:
        assert auc(targets, scores) is None
    else:
        assert auc(targets, scores) == pytest.approx(roc_auc_score(targets, scores))


def test_equal_rows_mix_to_equal_scores():
    """However many there are: vectorised sums round differently at the end of an array."""
    rng = np.random.default_rng(0)
    row, weights = rng.random(7), rng.random(7)
    assert len(np.unique(mix(np.tile(row, (1001, 1)), weights))) == 1


def test_truth_gives_the_answer_on_its_part(runs, make_table, tmp_path):
    record, found = _blend(runs, "a={}/a:0.7", "b={}/b:0.3", truth=runs / "a")
    assert record["blend"]["auc_truth"] == 1
    frame = pd.read_parquet(runs / "a" / "predictions.parquet")
    table = make_table(frame["target"], frame["fold"]).assign(image_id=frame["image_id"])
    _dataset(tmp_path / "data", table.sample(frac=1, random_state=0))
    data = {"truth": tmp_path / "data"}
    record, _ = _blend(runs, "a={}/a", **data)
    test = frame[frame["part"] == "test"]
    expected = roc_auc_score(test["target"], test["score"])
    assert record["blend"]["auc_truth"] == pytest.approx(expected)
    everything = frame.rename(columns={"target": "t", "image_id": "image_name", "score": "target"})
    everything[["image_name", "target"]].to_csv(runs / "all.csv", index=False)
    record, found = _blend(runs, "a={}/all.csv", **data)  # a CSV of predict, of all images
    assert len(found) == 360
    assert record["blend"]["auc_truth"] == pytest.approx(expected)
    one_class = table.assign(target=0)
    _dataset(tmp_path / "benign", one_class)
    assert _blend(runs, "a={}/a", truth=tmp_path / "benign")[0]["blend"]["auc_truth"] is None
    everything.iloc[:350][["image_name", "target"]].to_csv(runs / "few.csv", index=False)
    with pytest.raises(UserError, match="10 images of part test without a score: test50"):
        _blend(runs, "a={}/few.csv", **data)
    _dataset(tmp_path / "data", table.iloc[5:])
    with pytest.raises(UserError, match="does not know 5 images: oof0"):
        _blend(runs, "a={}/all.csv", **data)


def test_weights_found_on_one_folds_validation_part(runs, capsys):
    for name in "ab":
        frame = pd.read_parquet(runs / name / "predictions.parquet")
        frame = frame[(frame["part"] == "test") | (frame["fold"] == 0)]
        frame["part"] = frame["part"].replace("oof", "val")
        _save(runs / name, frame)
    record, _ = _blend(runs, "a={}/a", "b={}/b", fit_on="val")
    assert record["members"]["a"]["weight"] == pytest.approx(0.7, abs=0.04)
    assert record["blend"]["fold_auc_nested"] is None
    assert (
        "with one fold, or one class in a fold, nothing better is known" in capsys.readouterr().out
    )
    with pytest.raises(UserError, match=r"a.predictions.parquet: has no part oof; it has val"):
        _blend(runs, "a={}/a", "b={}/b", by="search")


def test_a_leaky_member_marks_the_blend(runs, capsys):
    _change(runs / "b", leaky=True)
    record, _ = _blend(runs, "a={}/a", "b={}/b")
    assert record["leaky"] == ["b"]
    assert "LEAKY: b" in capsys.readouterr().out


def _write(folder, text):
    (folder / "bad.csv").write_text("image_name,target\n" + text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("w,0\nx,0\ny,0\nq,0\n", "not the same images; 1 are in .*one.csv only: z"),
        ("w,0\nx,0\ny,0\nz,0\nq,0\n", "not the same images; 1 are in .*bad.csv only: q"),
        ("w,0\nx,0\ny,0\nz,0\nx,1\n", "bad.csv: 1 image comes twice: x"),
        ("w,0\nx,nan\ny,inf\nz,\n", r"3 scores are no finite numbers: x \('nan'\), y \('inf'\), z"),
        ("w,0\nx,zero\ny,0\nz,0\n", r"x \('zero'\)"),
        ("w,0,5\nx,0,1\ny,0,1\nz,0,1\n", "expected the columns image_name,target"),
    ],
)
def test_bad_csvs_are_told(csvs, text, words):
    _write(csvs, text)
    with pytest.raises(UserError, match=words):
        _blend(csvs, "a={}/one.csv", "b={}/bad.csv")
    assert not (csvs / "out.csv").exists()


def test_bad_files_are_told(csvs, runs):
    def refused(match, *words, **options):
        with pytest.raises(UserError, match=match):
            _blend(runs, *words, **options)
        assert not (runs / "out.csv").exists()

    (csvs / "bad.csv").write_text("image,score\na,1\n")
    refused("found image, score", "a={}/bad.csv")
    (csvs / "bad.csv").write_bytes(b"")
    refused("bad.csv: cannot be read as CSV", "a={}/bad.csv")
    refused("--scores a=.*/no.csv: no .*no.csv; expected NAME=FILE", "a={}/no.csv")
    refused("no .*one.csv:x; expected NAME=FILE or NAME=FILE:WEIGHT", "a={}/one.csv:x")
    (csvs / "bad.parquet").write_bytes(b"PAR1 and no more")
    refused("bad.parquet: damaged, no parquet table", "a={}/bad.parquet")
    refused("no .*predictions.parquet; expected", "a={}")
    (runs / "of-before").mkdir()
    (runs / "of-before" / "predictions.parquet").write_bytes(
        (runs / "a" / "predictions.parquet").read_bytes()
    )
    refused("Folders of earlier versions have no manifest.json", "a={}/of-before")
    (csvs / "scores.xlsx").write_bytes(b"PK")
    refused("expected a run, its predictions.parquet or a .csv", "a={}/scores.xlsx")
    pd.DataFrame({"image_id": ["a"]}).to_parquet(csvs / "bad.parquet")
    refused("no column group, fold", "a={}/bad.parquet")
    refused("has no part external/x; it has oof, test", "a={}/a", part="external/x")
    rows = "".join(f"test{i},0.5\n" for i in range(60))
    _write(csvs, rows)
    refused("bad.csv: a CSV, which has no part oof", "a={}/bad.csv", "b={}/a", by="search")
    _change(runs / "b", "test", fold=7)
    refused("not the same folds: test0, test1", "a={}/a", "b={}/b")
    _change(runs / "b", "test", fold=-1, score=np.nan)
    refused("60 scores are not finite: test0", "a={}/a", "b={}/b")
    _change(runs / "b", "test", score=0.5, target=1)
    refused("not the same targets", "a={}/a", "b={}/b")
    refused("truth .*: does not know 4 images: w, x, y, z", "a={}/one.csv", truth=runs / "a")


def test_bad_options_are_told(csvs, runs):
    def refused(match, *words, **options):
        with pytest.raises(UserError, match=match):
            _blend(runs, *words, **options)
        assert not (runs / "out.csv").exists()

    refused("weight of 0 or more, found -0.1", "a={}/one.csv:-0.1", "b={}/two.csv:1.1")
    refused("found nan", "a={}/one.csv:nan")
    refused("found inf", "a={}/one.csv:inf")
    refused("sum to 0", "a={}/one.csv:0", "b={}/two.csv:0")
    refused("b=...: no weight, and others have", "a={}/one.csv:1", "b={}/two.csv")
    refused("name a is given twice", "a={}/one.csv", "a={}/two.csv")
    refused("expected NAME=FILE", "{}/one.csv")
    refused("expected NAME=FILE")
    refused("--fit-on test: weights are found on oof", "a={}/a", "b={}/b", fit_on="test")
    refused("--fit-on external/x: weights", "a={}/a", "b={}/b", fit_on="external/x")
    refused("a=...:0.5: weights are to be found", "a={}/a:0.5", "b={}/b", by="search")
    refused("two members or more", "a={}/a", by="search")
    refused("ends in .csv", "a={}/a", out=runs / "out.txt")
    for name in "ab":
        _change(runs / name, target=0)
    refused("300 images are all of one class", "a={}/a", "b={}/b", by="search")


def test_what_is_there_is_kept(csvs):
    for name in ("out.csv", "out.json"):
        (csvs / name).write_text("mine")
        with pytest.raises(UserError, match=f"{name}: exists already"):
            _blend(csvs, "a={}/one.csv", overwrite=False)
        assert (csvs / name).read_text() == "mine"
        (csvs / name).unlink()
    _blend(csvs, "a={}/one.csv", overwrite=False)


def test_the_command_line_and_a_config_file_say_the_same(csvs):
    out = str(csvs / "out.csv")
    words = [f"a={csvs}/one.csv:0.9", f"b={csvs}/two.csv:0.1"]
    config = csvs / "mix.yaml"
    config.write_text(f"scores: ['{words[0]}', '{words[1]}']\nout: {out}\n")
    forms = [
        ["--scores", *words, "--out", out],
        ["--scores", words[0], "--scores", words[1], "--out", out],
        ["--config", str(config)],
    ]
    found = []
    for form in forms:
        blend(cli.parse(BlendOptions, [*form, "--overwrite"], "", ""))
        found.append((csvs / "out.csv").read_text())
    assert found[0] == found[1] == found[2]
    assert "z,0.35" in found[0]
