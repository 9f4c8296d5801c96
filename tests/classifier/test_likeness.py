"""What looks unlike the training images is told; what looks like them is left alone."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.covariance import ledoit_wolf

from classifier.evaluate import EvaluateOptions, evaluate
from classifier.evaluation import likeness, page_figures
from classifier.evaluation.likeness import Looks, facts_of, fit, in_words, is_unlike, sentence
from classifier.options import TrainOptions
from classifier.predict import PredictOptions, predict
from classifier.records import LikenessFacts
from classifier.run_folder import MODEL, REFERENCES
from classifier.train import train
from classifier.training import outputs, references
from data.store import write_dataset
from dermsynth.options import ComputeOptions, replace

SIZE = 32
UNSEEN = np.full((1, 2), np.nan)


def pictures(n, seed=0, colour=(200, 150, 130), grain=6, framed=False):
    """Skin of one colour with a dark blob in it; its place, size and darkness vary."""
    rng = np.random.default_rng(seed)
    along, down = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    images = []
    for _ in range(n):
        x, y = rng.uniform(12, 20, 2)
        blob = np.exp(-((along - x) ** 2 + (down - y) ** 2) / rng.uniform(20, 60))
        image = np.array(colour) * (1 - rng.uniform(0.3, 0.6) * blob[..., None])
        image += rng.normal(0, 8, 3) + rng.normal(0, grain, (SIZE, SIZE, 1))
        if framed:
            image[np.hypot(along - 15.5, down - 15.5) > 16] = 2
        images.append(np.clip(image, 0, 255))
    return np.array(images, np.uint8)


def looks(images, seed=0, centre=0.0, sides=(600, 450)):
    """With made-up features: a cloud about one direction, or about one `centre` away."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 0.2, (len(images), 24))
    features[:, 0] += 1
    features[:, 1] += centre
    return Looks.of(images, features, np.tile(np.array(sides, float), (len(images), 1)), SIZE)


@pytest.fixture(scope="module")
def reference():
    return fit(looks(pictures(300, 1), 1), looks(pictures(300, 2), 2))


def facts(reference, seen):
    return facts_of(reference.distances(seen), seen, reference.about)


def test_five_of_a_hundred_images_of_the_same_kind_look_unlike(reference):
    found = facts(reference, looks(pictures(600, 3), 3))
    assert found.unlike == pytest.approx(0.05, abs=0.03)
    assert 0 < max(found.by.values()) <= found.unlike <= sum(found.by.values())
    assert not is_unlike(found, likeness.SUSPECT)
    assert in_words(found, reference.about) == (
        f"{found.unlike:.0%} of these images look unlike the training images (5% of held-out ones "
        "do)"
    )


@pytest.mark.parametrize(
    ("kind", "changed", "others"),
    [
        ("features", {"centre": 3.0}, {}),
        ("colour", {}, {"colour": (120, 150, 200)}),
        ("sharpness", {}, {"grain": 40}),
    ],
)
def test_each_distance_notices_what_it_is_for(reference, kind, changed, others):
    found = facts(reference, looks(pictures(100, 4, **others), 4, **changed))
    assert found.by[kind] > 0.9
    assert found.unlike > 0.9
    assert in_words(found, reference.about).startswith("warning: ")
    assert "do not trust these scores" in sentence(found)


def test_squares_frames_and_other_sizes_are_told(reference):
    seen = looks(pictures(100, 5, framed=True), 5, sides=(1024, 1024))
    assert (seen.square, seen.side, seen.framed.mean()) == (1, 1024, 1)
    words = in_words(facts(reference, seen), reference.about)
    assert "100% are square (0% of the training images)" in words
    assert "100% have dark corners" in words
    assert "shorter side 1024 px (450 px in training)" in words
    unknown = dataclasses.replace(seen, sides=np.full((100, 2), np.nan))
    assert facts(reference, unknown).square is None
    assert "square" not in in_words(facts(reference, unknown), reference.about)


@pytest.mark.parametrize(
    ("images", "unlike", "words"),
    [
        (1000, 0.62, "do not trust these scores"),
        (1000, 0.25, "do not trust these scores"),
        (1000, 0.24, "trust these scores less"),
        (1000, 0.10, "trust these scores less"),
        (1000, 0.09, None),
        (10, 0.1, None),  # one of ten: two in five such sets of held-out images have one
        (1, 1.0, "do not trust these scores"),
    ],
)
def test_the_thresholds(images, unlike, words):
    of = LikenessFacts(
        images=images, held_out_images=300, unlike=unlike, by={}, square=None, framed=0.0, side=None
    )
    start = f"{unlike:.0%} of these images look unlike the training images (5% of held-out ones do)"
    assert sentence(of) == start + (f": {words}" if words else "")


def test_a_scale_from_few_images_is_not_trusted_to_the_percent():
    """That many beyond a reach from 60 images is chance, beyond one from 2,000 it is not."""
    of = LikenessFacts(
        images=60, held_out_images=60, unlike=7 / 60, by={}, square=None, framed=0.0, side=None
    )
    assert not is_unlike(of, likeness.SUSPECT)
    assert is_unlike(of.model_copy(update={"held_out_images": 2000}), likeness.SUSPECT)


def test_too_few_images_give_no_scale():
    assert fit(looks(pictures(100)), looks(pictures(likeness.FEWEST - 1))) is None


def test_images_of_one_colour_do_no_harm():
    flat = np.full((40, SIZE, SIZE, 3), 90, np.uint8)
    reference = fit(looks(flat, 1), looks(flat, 2))
    assert np.isfinite(reference.distances(looks(flat, 3))["distance"]).all()
    assert facts(reference, looks(pictures(40), 4)).unlike == 1


# --- runs ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    monkeypatch.setattr(outputs, "draw_plots", lambda *_: None)
    monkeypatch.setattr(page_figures, "_finish", lambda *_: "data:,")
    monkeypatch.setattr(page_figures, "sheet", lambda *_: None)


def dataset(folder, make_table, n, seed, **kind):
    targets = np.arange(n) % 4 == 0
    images = pictures(n, seed, **kind)
    images[targets, 10:22, 10:22] //= 2
    folds = np.repeat(np.arange(n // 4) % 4 - 1, 4)
    table = make_table(targets.astype(int), folds, seed).assign(width=600, height=450)
    return write_dataset(folder, images, table, {})


@pytest.fixture(scope="module")
def runs(tmp_path_factory, make_table):
    """A training with two external sets: of the same kind, and sharper, bluer and framed."""
    root = tmp_path_factory.mktemp("likeness")
    own = dataset(root / "own", make_table, 240, 0)
    alike = dataset(root / "alike", make_table, 120, 7)
    other = dataset(root / "other", make_table, 120, 8, colour=(90, 110, 190), grain=45)
    options = replace(
        TrainOptions(),
        **{"backbone": "efficientnet-lite0", "size": SIZE, "frozen": 7, "batch": 16, "views": 1},
        **{"device": "cpu", "precision": "fp32", "tracking": "none", "epochs": 2},
        **{"data": own.path, "out": root / "run"},
        external=(f"alike={alike.path}", f"other={other.path}"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outputs, "draw_plots", lambda *_: None)
        train(options)
    return root


def predicted(runs, data, tmp_path, **changes):
    options = PredictOptions(
        *(runs / "run", runs / data, tmp_path / f"{data}.csv"),
        compute=ComputeOptions("cpu", "fp32"),
    )
    predict(dataclasses.replace(options, **changes))
    distances = pd.read_csv(tmp_path / f"{data}.likeness.csv")
    return distances, json.loads((tmp_path / f"{data}.likeness.json").read_text())


def test_a_training_says_it_of_external_sets(runs):
    found = json.loads((runs / "run/run.json").read_text())["likeness"]
    assert list(found) == ["test", "external/alike", "external/other"]
    assert found["test"]["unlike"] < 0.2
    assert found["external/alike"]["unlike"] < 0.2
    assert found["external/other"]["unlike"] > 0.9
    about = json.loads((runs / "run" / MODEL).read_text())["likeness"]
    assert (about["training_images"], about["held_out_images"]) == (120, 60)
    assert (about["square"], about["side"]) == (0, 450)


def test_predicting_other_images_warns_and_names_them(runs, tmp_path, capsys):
    distances, record = predicted(runs, "other", tmp_path)
    told = capsys.readouterr().out
    assert "warning: 100% of these images look unlike the training images" in told
    start = "100% of these images look unlike the training images (5% of held-out ones do)"
    assert record["words"].startswith(f"{start}: do not trust these scores")
    assert list(distances) == ["image_name", "distance", "features", "colour", "sharpness"]
    assert (distances["distance"] > 1).mean() == record["images"]["unlike"] == 1
    known = json.loads((runs / "run/run.json").read_text())["likeness"]["external/other"]
    assert record["images"] == known  # all of so few images were looked at in training


@pytest.mark.parametrize("tta", [1, 8])
def test_predicting_images_of_the_same_kind_does_not_warn(runs, tmp_path, capsys, tta):
    distances, record = predicted(runs, "alike", tmp_path, tta=tta)
    assert "warning" not in capsys.readouterr().out
    assert record["images"]["unlike"] < 0.2
    known = json.loads((runs / "run/run.json").read_text())["likeness"]["external/alike"]
    assert record["images"]["unlike"] == pytest.approx(known["unlike"], abs=0.01)
    assert len(distances) == 120


def test_an_evaluation_says_it_on_the_screen_and_on_the_page(runs, tmp_path, capsys):
    options = EvaluateOptions(runs / "run", out=tmp_path / "evaluation", replicates=200)
    found = evaluate(options)
    parts = found["likeness"]["parts"]
    assert [part["warning"] for part in parts.values()] == [False, False, True]
    told = capsys.readouterr().out
    assert "warning: external/other: 100% of these images look unlike" in told
    page = (tmp_path / "evaluation/evaluation.html").read_text()
    assert "Likeness to the training images" in page
    assert "<strong>external/other.</strong> 100% of these images look unlike" in page


def test_a_run_of_an_earlier_version_scores_as_before(runs, tmp_path, capsys, seal_run):
    """Without what is needed: one line says so, and files of another run do not stay."""
    predicted(runs, "alike", tmp_path)
    scores = pd.read_csv(tmp_path / "alike.csv")
    old = shutil.copytree(runs / "run", tmp_path / "old")
    (old / REFERENCES).unlink()
    for name in (MODEL, "run.json"):
        record = json.loads((old / name).read_text())
        del record["likeness"]
        (old / name).write_text(json.dumps(record))
    seal_run(old)
    options = PredictOptions(old, runs / "alike", tmp_path / "alike.csv", overwrite=True)
    predict(dataclasses.replace(options, compute=ComputeOptions("cpu", "fp32")))
    assert "likeness to the training images is unknown" in capsys.readouterr().out
    assert not (tmp_path / "alike.likeness.csv").exists()
    assert not (tmp_path / "alike.likeness.json").exists()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "alike.csv"), scores)
    found = evaluate(EvaluateOptions(old, out=tmp_path / "evaluation", replicates=200))
    assert found["likeness"] is None


def test_a_training_looks_at_a_bounded_number_of_images(monkeypatch):
    monkeypatch.setattr(references, "MOST", 50)
    drawn = references._drawn(np.arange(1000), "train")
    assert len(np.unique(drawn)) == 50
    assert (drawn == references._drawn(np.arange(1000), "train")).all()
    assert (references._drawn(np.arange(30), "val") == np.arange(30)).all()


def test_the_distance_of_features_is_mahalanobis_with_the_shrunk_covariance(reference):
    """Computed without the covariance's inverse, it is that of the inverse."""
    seen, known = looks(pictures(50, 9), 9), reference.features.astype(np.float64)
    covariance, shrinkage = ledoit_wolf(known)
    assert reference.about.shrinkage == pytest.approx(shrinkage, rel=1e-4)
    off = seen.features - known.mean(0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", off, np.linalg.inv(covariance), off))
    found = reference.distances(seen)["features"] * reference.about.reach["features"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.slow  # three trainings
def test_a_run_of_all_folds_says_the_mean_over_its_models(runs, tmp_path, make_table, capsys):
    options = replace(
        TrainOptions(),
        **{"backbone": "efficientnet-lite0", "size": SIZE, "frozen": 7, "batch": 16, "views": 1},
        **{"device": "cpu", "precision": "fp32", "tracking": "none", "epochs": 1, "fold": "all"},
        **{"data": runs / "own", "out": tmp_path / "run", "external": (f"o={runs / 'other'}",)},
    )
    train(options)
    cpu = ComputeOptions("cpu", "fp32")
    predict(PredictOptions(tmp_path / "run", runs / "other", tmp_path / "o.csv", compute=cpu))
    record = json.loads((tmp_path / "o.likeness.json").read_text())
    assert record["images"]["unlike"] == 1
    found = evaluate(EvaluateOptions(tmp_path / "run", out=tmp_path / "e", replicates=200))
    assert found["likeness"]["parts"]["external/o"]["unlike"] == 1
    assert "warning: external/o: 100% of these images" in capsys.readouterr().out
