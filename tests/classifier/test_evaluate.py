"""The evaluation of runs: real predictions with made-up scores, and one run that was trained."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import recall_score

from classifier.evaluate import EvaluateOptions, evaluate
from classifier.evaluation import error_gallery, metrics, page_figures
from classifier.evaluation.page import synthetic_facts
from classifier.run_folder import COLUMNS
from classifier.train import train
from classifier.training import outputs
from classifier.training.setup import TrainOptions
from data.store import load_dataset, write_dataset
from dermsynth import cli
from dermsynth.errors import UserError
from dermsynth.manifest import open_sealed, read_manifest
from dermsynth.options import replace
from dermsynth.verify import verify

FIGURES = [
    *("auc", "average_precision", "balanced_accuracy", "sensitivity_at_95_specificity"),
    *("specificity_at_95_sensitivity", "partial_auc_tpr80", "brier", "ece"),
    *("accuracy", "accuracy_at_threshold", "log_loss"),
]
CLASSES = ["mel", "nv", "bcc"]


@pytest.fixture(autouse=True)
def plain(request, monkeypatch):
    """Drawing takes seconds: only tests marked with `drawn` do it."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(page_figures, "_finish", lambda *_: "data:,")
        monkeypatch.setattr(page_figures, "sheet", lambda *_: None)


@pytest.fixture
def drawn():
    """Asks for real plots."""


@pytest.fixture
def described(tiny, tmp_path):
    """The tiny dataset with people in it, and names that must not break a page or a plot."""
    rng = np.random.default_rng(0)
    n = len(tiny.table)
    table = tiny.table.assign(
        sex=rng.choice(["female", "male", None], n),
        age=rng.choice([20.0, 50.0, np.nan], n),
        site=rng.choice(["leg", "<b>$arm$</b>"], n),
        diagnosis=np.where(tiny.table["target"] == 1, "mel", rng.choice(["nv", "bcc"], n)),
        source=rng.choice(["one", "two"], n),
    )
    return write_dataset(tmp_path / "people", np.asarray(tiny.images), table, {})


def predictions_of(dataset, parts, seed=0):
    """Scores of some use for `parts`: name -> rows of the dataset."""
    rng, found = np.random.default_rng(seed), []
    for name, rows in parts.items():
        table = dataset.table.iloc[rows]
        logit = rng.normal(-1, 1.2, len(rows)) + 1.5 * table["target"].to_numpy(float)
        found.append(
            pd.DataFrame(
                {
                    **{key: table[key].to_numpy() for key in ("image_id", "group", "fold")},
                    **{"part": name, "target": table["target"].to_numpy(int)},
                    "score": 1 / (1 + np.exp(-logit)),
                }
            )
        )
    return pd.concat(found, ignore_index=True)


@pytest.fixture
def write_run(seal_run):
    def write_run(folder, predictions, data, external=(), kind="classifier"):
        """A finished run's folder, without a model. `external`: NAME=FOLDER."""
        folder.mkdir()
        predictions.to_parquet(folder / "predictions.parquet")
        (folder / "metrics.json").write_text("{}")
        inputs = {"dataset": load_dataset(data).as_input}
        for text in external:
            name, _, place = text.partition("=")
            inputs[f"external/{name}"] = load_dataset(data).as_input.model_copy(
                update={"path": place}
            )
        seal_run(folder, kind, inputs, {"size": 32, "external": list(external)})
        return EvaluateOptions(run=folder, replicates=200)

    return write_run


@pytest.fixture
def reseal(seal_run):
    """Finish a run's folder again after its files were changed."""

    def reseal(folder):
        before = read_manifest(folder, "")
        seal_run(folder, before.kind, before.inputs, before.options)

    return reseal


@pytest.fixture
def options(described, tmp_path, write_run):
    parts = {"val": described.rows("val", 0), "test": described.rows("test", 0)}
    return write_run(tmp_path / "run", predictions_of(described, parts), data=described.path)


def test_every_figure_of_metrics_json_with_an_interval(options):
    found = evaluate(options)
    out = options.run / "evaluation"
    assert json.loads((out / "evaluation.json").read_text()) == found
    predictions = pd.read_parquet(options.run / "predictions.parquet")
    of = dict(list(predictions.groupby("part")))
    val = of["val"]
    threshold = metrics.best_threshold(val["target"].to_numpy(), val["score"].to_numpy())
    for name, rows in of.items():
        expected = metrics.measure_scores(
            rows["target"].to_numpy(), rows["score"].to_numpy(), threshold
        )
        part = found["parts"][name]
        for key in FIGURES:
            assert part[key]["value"] == pytest.approx(expected.pop(key), abs=1e-9)
            assert part[key]["low"] <= part[key]["high"]
        assert {key: part[key] for key in expected} == expected  # n, n_malignant, threshold
        assert part["n_groups"] == rows["group"].nunique()


def test_the_page_is_one_file_that_says_what_was_asked(options, drawn):
    found = evaluate(options)
    out = options.run / "evaluation"
    page = (out / "evaluation.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert not re.search(r"url\((?!#)", page)
    assert page.count("<table") == page.count("text/csv") > 4
    assert "<b>$arm$</b>" not in page  # escaped
    assert "&lt;b&gt;$arm$&lt;/b&gt;" in page
    assert f"{found['parts']['test']['auc']['value']:.3f}" in page
    names = {"roc", "precision-recall", "failures"}
    names |= {f"{kind}-{part}" for kind in ("reliability", "subgroups") for part in ("val", "test")}
    assert {path.stem for path in out.glob("*.png")} == names
    assert "model.json: not in manifest.json" in found["gallery"]["cam_missing"]
    assert "model.json: not in manifest.json" in page
    variables = ["sex", "age", "site", "skin_tone", "source"]
    assert list(found["parts"]["test"]["subgroups"]) == variables
    for lines in found["parts"]["test"]["subgroups"].values():
        assert sum(line["n"] for line in lines) == found["parts"]["test"]["n"]


def test_thresholds_and_temperature_come_from_validation_alone(options, reseal):
    before = evaluate(options)
    path = options.run / "predictions.parquet"
    predictions = pd.read_parquet(path)
    test = predictions["part"] == "test"
    predictions.loc[test, "score"] = 1 - predictions.loc[test, "score"]
    predictions.to_parquet(path)
    reseal(options.run)
    after = evaluate(dataclasses.replace(options, overwrite=True))
    for key in ("thresholds", "temperature"):
        assert after[key] == before[key]
    assert after["parts"]["val"] == before["parts"]["val"]
    assert after["parts"]["test"]["auc"] != before["parts"]["test"]["auc"]


@pytest.mark.slow
def test_a_cross_validated_run_of_several_diagnoses(described, tmp_path, drawn, write_run):
    inside = np.flatnonzero(described.table["fold"] >= 0)
    parts = {"test": described.rows("test", 0), "oof": inside}
    predictions = predictions_of(described, parts)
    diagnosis = described.table.set_index("image_id")["diagnosis"][predictions["image_id"]]
    rng = np.random.default_rng(0)
    hit = 1.5 * (diagnosis.to_numpy()[:, None] == np.array(CLASSES))
    p = softmax(rng.normal(0, 1, (len(predictions), 3)) + hit, 1)
    predictions = predictions.assign(diagnosis=diagnosis.to_numpy(), score=p[:, 0])
    predictions = predictions.assign(**{f"score_{c}": p[:, at] for at, c in enumerate(CLASSES)})
    other = predictions["part"].eq("test") & predictions["diagnosis"].eq("bcc")
    predictions.loc[other, "diagnosis"] = "scc"  # no class of this run
    options = write_run(tmp_path / "run", predictions, data=described.path, kind="classifier-folds")
    found = evaluate(options)
    assert list(found["parts"]) == ["oof", "test"]
    assert found["validation_part"] == "oof"
    assert found["class_temperature"] > 0
    of = found["parts"]["test"]["classes"]
    assert of["absent"] == ["bcc"]
    assert of["left_out"] == {"scc": int(other.sum())}
    assert of["intervals"]["auc"]["bcc"]["value"] is None
    weighed = p / p[predictions["part"] == "oof"].mean(0)  # by validation, in every part
    known = predictions["part"].eq("test") & ~other
    called = np.array(CLASSES)[weighed[known].argmax(1)]
    there = {"average": "macro", "labels": ["mel", "nv"]}
    expected = recall_score(predictions["diagnosis"][known], called, **there)
    even = of["equal_prior"]
    assert even["balanced_accuracy"]["value"] == pytest.approx(expected)
    assert even["accuracy"]["value"] == pytest.approx(
        np.mean(called == predictions["diagnosis"][known])
    )
    assert np.sum(even["confusion"]["counts"]) == known.sum()
    page = (options.run / "evaluation" / "evaluation.html").read_text()
    assert "No images of bcc" in page
    assert (options.run / "evaluation" / "confusion-test.png").exists()
    assert (options.run / "evaluation" / "classes-oof.png").exists()
    assert (options.run / "evaluation" / "confusion-even-oof.png").exists()
    assert "Equal prior" in page


@pytest.mark.parametrize(
    ("names", "headings", "words"),
    [
        (["val", "test"], ["test"], "On test ("),
        (["val", "external/e"], ["val", "external/e"], "On val ("),
        (["oof", "external/e"], ["oof", "external/e"], "Out of fold ("),
    ],
)
def test_the_part_that_the_page_is_about_is_shown_in_full(
    described, tmp_path, names, headings, words, write_run
):
    parts = dict(zip(names, (described.rows("val", 0), described.rows("test", 0)), strict=True))
    there = {"data": described.path, "external": [f"e={described.path}"]}
    options = write_run(tmp_path / "run", predictions_of(described, parts), **there)
    evaluate(options)
    page = (options.run / "evaluation" / "evaluation.html").read_text()
    section = page.split('<h2 id="subgroups">')[1].split("</section>")[0]
    assert re.findall("<h3>(.*)</h3>", section) == headings
    assert f'<p class="lead">{words}' in page


def test_one_class_and_lost_datasets_cost_their_sections_alone(described, tmp_path, write_run):
    benign = np.flatnonzero(described.table["target"] == 0)[:30]
    test = described.rows("test", 0)
    parts = {"val": benign, "test": test, "external/lost": test, "external/other": test}
    predictions = predictions_of(described, parts)
    lost = tmp_path / "lost"
    shutil.copytree(described.path, lost)
    (lost / "images.npy").write_bytes(b"no array")
    external = [f"lost={lost}", f"other={tmp_path / 'nowhere'}"]
    options = write_run(tmp_path / "run", predictions, data=described.path, external=external)
    found = evaluate(options)
    assert found["thresholds"] is None
    assert found["temperature"] is None
    of = found["parts"]
    assert of["val"]["auc"]["value"] is None
    assert "All images are not malignant" in of["val"]["notes"][0]
    assert of["test"]["auc"]["value"] is not None
    assert of["test"]["balanced_accuracy"]["value"] is None
    assert of["test"]["missing"] is None
    assert "images.npy: damaged" in of["external/lost"]["missing"]
    assert "skin_tone" not in of["external/lost"]["subgroups"]
    assert "no prepared dataset there" in of["external/other"]["missing"]
    assert of["external/other"]["subgroups"] is None
    page = (options.run / "evaluation" / "evaluation.html").read_text()
    assert "no threshold can be chosen" in page
    assert "no temperature can be fitted" in page
    assert "no prepared dataset there" in page


def test_another_dataset_in_the_same_place_is_not_taken_for_the_first(options, described):
    swapped = described.table.assign(target=1 - described.table["target"])
    write_dataset(described.path, np.asarray(described.images), swapped, {}, overwrite=True)
    found = evaluate(options)
    assert "not what it began with (dataset: other targets)" in found["parts"]["test"]["missing"]
    assert found["parts"]["test"]["subgroups"] is None


def test_datasets_that_moved_are_named_and_others_are_told(described, tmp_path, write_run, other):
    test = described.rows("test", 0)
    parts = {"val": described.rows("val", 0), "test": test, "external/far": test}
    external = [f"far={tmp_path / 'far'}"]
    shutil.copytree(described.path, tmp_path / "far")
    options = write_run(
        tmp_path / "run", predictions_of(described, parts), data=described.path, external=external
    )
    whole = evaluate(options)
    moved, far = tmp_path / "moved", tmp_path / "far2"
    described.path.rename(moved)
    (tmp_path / "far").rename(far)
    options = dataclasses.replace(options, overwrite=True)
    lost = evaluate(options)["parts"]
    assert "say with --data FOLDER where" in lost["test"]["missing"]
    assert "say with --external far=FOLDER where" in lost["external/far"]["missing"]
    there = dataclasses.replace(options, data=moved, external=(f"far={far}",))
    assert evaluate(there)["parts"] == whole["parts"]
    swapped = evaluate(dataclasses.replace(there, data=other.path))["parts"]
    assert "dataset: other ids, targets" in swapped["test"]["missing"]
    assert swapped["external/far"] == whole["parts"]["external/far"]
    with pytest.raises(UserError, match="NAME one of the run's test sets: far"):
        evaluate(dataclasses.replace(options, external=("near=x",)))


def test_an_evaluation_is_a_sealed_folder_of_its_run(options):
    evaluate(options)
    sealed = open_sealed(options.run / "evaluation", "classifier-evaluation", "", "")
    assert sealed.manifest.inputs["run"].id == read_manifest(options.run, "").id
    assert [check.faults for check in verify(options.run)] == [[], []]


def test_a_leaky_run_is_marked(options, reseal):
    marked = {"val": {"auc": 0.9, "leaky": "the pool saw <test> images"}}
    (options.run / "metrics.json").write_text(json.dumps(marked))
    reseal(options.run)
    assert evaluate(options)["leaky"] == "the pool saw <test> images"
    page = (options.run / "evaluation" / "evaluation.html").read_text()
    assert "not results" in page
    assert "the pool saw &lt;test&gt; images" in page


def test_bad_input_is_told_in_one_line_and_nothing_is_written(options, tmp_path, reseal):
    def refused(match, **changes):
        with pytest.raises(UserError, match=match):
            evaluate(dataclasses.replace(options, **changes))

    path = options.run / "predictions.parquet"
    good = pd.read_parquet(path)

    def refused_with(match, table):
        table.to_parquet(path)
        reseal(options.run)
        refused(match)
        good.to_parquet(path)
        reseal(options.run)

    refused("no finished run", run=tmp_path)
    refused("--replicates 20: expected a whole number from 200", replicates=20)
    refused("--seed -1", seed=-1)
    for column in COLUMNS:
        refused_with(f"no column {column}", good.drop(columns=column))
    refused_with("score that is not in 0..1: s0-", good.assign(score=good["score"] * 3))
    refused_with(f"{len(good)} rows have a score", good.assign(score=np.nan))
    refused_with("target that is not 0 or 1", good.assign(target=2))
    refused_with("an image_id that its part has already", pd.concat([good, good.head(1)]))
    refused_with("found none among test", good[good["part"] == "test"])
    both = pd.concat([good, good[good["part"] == "val"].assign(part="oof")])
    refused_with("found val and oof", both)
    refused_with("no column diagnosis", good.assign(score_mel=0.5))
    path.write_bytes(b"no parquet")
    refused("predictions.parquet: it is not what was written")
    path.unlink()
    refused("predictions.parquet: cannot be read")
    good.to_parquet(path)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    refused("exists already", out=mine)
    refused("not made by this command", out=mine, overwrite=True)
    refused("a classifier, not a classifier-evaluation", out=options.run, overwrite=True)
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert not (options.run / "evaluation").exists()
    assert not list(options.run.glob(".*"))


def test_a_kill_while_drawing_leaves_the_old_evaluation(options, monkeypatch):
    evaluate(options)
    before = (options.run / "evaluation" / "evaluation.json").read_bytes()

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(page_figures, "_finish", die)
    with pytest.raises(KeyboardInterrupt):
        evaluate(dataclasses.replace(options, seed=1, overwrite=True))
    assert (options.run / "evaluation" / "evaluation.json").read_bytes() == before
    assert not list(options.run.glob(".*"))


@pytest.mark.parametrize("tta", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_a_trained_run_from_the_command_line(tta, tiny, tmp_path, monkeypatch, capsys, drawn):
    out = tmp_path / "run"
    cpu = {"device": "cpu", "precision": "fp32", "tracking": "none"}
    small = {"backbone": "efficientnet-lite0", "size": 32, "frozen": 7, "batch": 16, "views": 2}
    monkeypatch.setattr(outputs, "draw_plots", lambda *_: None)
    train(replace(TrainOptions(), data=tiny.path, epochs=1, out=out, tta=tta, **small, **cpu))
    monkeypatch.setattr("sys.argv", ["evaluate", "--run", str(out), "--replicates", "200"])
    cli.run(EvaluateOptions, evaluate, "classifier.evaluate", "")
    assert "bal. acc." in capsys.readouterr().out
    found = json.loads((out / "evaluation" / "evaluation.json").read_text())
    for name, part in json.loads((out / "metrics.json").read_text()).items():
        for key, value in part.items():
            mine = found["parts"][name][key]
            mine = mine["value"] if isinstance(mine, dict) else mine
            assert mine == pytest.approx(value, abs=1e-9), (name, key)
    assert found["gallery"]["cam_missing"] is None
    head = page_head(out / "evaluation" / "evaluation.html")
    assert "synthetic share none" in head
    assert head.index("synthetic share") < head.index("On test")  # first
    options = options_listed(out / "evaluation" / "evaluation.html")
    assert {name: options[name] for name in ("fold", "seed", "cutmix", "upsample")} == {
        **{"fold": "0", "seed": "0", "cutmix": "0.0", "upsample": "no"}  # 0 is a value
    }
    assert (out / "evaluation" / "gradcam.png").exists()
    page = (out / "evaluation" / "evaluation.html").read_text()
    # the saved model, the dataset's images, the same path, but for views
    gap = found["gallery"]["score_gap"]
    assert gap is None if tta == 8 else gap < 1e-4
    assert ("means over 8 views" in page) == (tta == 8)
    assert "These are not the scores of the run" not in page
    with pytest.raises(SystemExit) as stop:
        cli.run(EvaluateOptions, evaluate, "classifier.evaluate", "")
    assert stop.value.code == 2


def page_head(path):
    return " ".join(re.sub("<[^>]*>", " ", path.read_text().split("<header>")[1]).split())


def options_listed(path):
    section = path.read_text().split('<details id="every-option">')[1].split("</details>")[0]
    return dict(re.findall(r"<dt>(\w+)</dt><dd>\s*(.*?)\s*</dd>", section))


def test_the_synthetic_share_and_the_pool_are_said_in_words():
    counts = {"real_benign": 90, "real_malignant": 10, "synthetic_malignant": 40}
    counts |= {"synthetic_benign": 0, "duplicated_malignant": 2}
    pool = {"path": "datasets/pool", "id": "ab" * 32, "kind": "generator", "seed": 0}
    facts = {"training_images": counts, "pool": pool}
    target = {"one": "melanoma", "zero": "not melanoma"}
    made = synthetic_facts({"synthetic": "0.3", "generator": None}, facts, target)
    assert made == {
        "synthetic share": "0.3",
        "training images": "100 real (10 melanoma), 40 synthetic melanoma, "
        "0 synthetic not melanoma, 2 duplicates",
        "pool": "datasets/pool (abababababab, of kind generator, seed 0)",
    }
    assert synthetic_facts({"synthetic": "0"}, {}, target) == {"synthetic share": "none"}
    assert synthetic_facts({"columns": "age"}, {}, target) == {}  # metadata alone


@pytest.mark.slow
@pytest.mark.parametrize("part", ["oof", "test"])
def test_grad_cam_of_all_folds_shows_a_model_images_that_are_new_to_it(
    part, described, tmp_path, monkeypatch, drawn
):
    cpu = {"device": "cpu", "precision": "fp32", "tracking": "none"}
    small = {"backbone": "vanilla-cnn", "weights": "none", "size": 32, "batch": 16, "views": 0}
    monkeypatch.setattr(outputs, "draw_plots", lambda *_: None)
    data, out = described, tmp_path / "all"
    if part == "oof":  # no test part
        inside = np.flatnonzero(data.table["fold"] >= 0)
        table = data.table.iloc[inside].reset_index(drop=True)
        data = write_dataset(tmp_path / "inside", np.asarray(data.images[inside]), table, {})
    train(replace(TrainOptions(), data=data.path, fold="all", epochs=1, out=out, **small, **cpu))
    shown = []
    captions = error_gallery.captions
    monkeypatch.setattr(
        error_gallery, "captions", lambda rows: shown.append(rows) or captions(rows)
    )
    found = evaluate(EvaluateOptions(run=out, replicates=200))["gallery"]
    assert found["part"] == part
    assert found["cam_fold"] == 0
    page = (out / "evaluation" / "evaluation.html").read_text()
    assert "The model is that of fold 0" in page
    seen = shown[-1]  # the failures come first
    if part == "oof":
        assert set(seen["fold"]) == {0}
        assert found["score_gap"] < 1e-4
    else:
        assert found["score_gap"] is None
        assert "means over the models of" in page
