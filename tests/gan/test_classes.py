import json

import numpy as np
import pytest

from data.pool import load_pool
from dermsynth.errors import UserError
from dermsynth.options import replace
from gan.evaluate import EvaluateOptions, evaluate
from gan.evaluation import records
from gan.evaluation.records import read_evaluation
from gan.generate import GenerateOptions, generate
from gan.sampling import draw_labels
from gan.train import train
from gan.training_images import TrainingImages, training_part
from gan.weights import read_description

COUNTS = {"mel": 40, "nv": 90, "bcc": 25, "df": 23, "rare": 2, None: 20}


@pytest.fixture(scope="session")
def classes_dataset(make_dataset, tmp_path_factory):
    """200 images, 160 of them with a fold; some without a diagnosis, bcc malignant beside mel."""
    names = [name for name, count in COUNTS.items() for _ in range(count)]
    diagnosis = [names[i] for i in np.random.default_rng(0).permutation(200)]
    target = [int(d in ("mel", "bcc")) for d in diagnosis]
    out = tmp_path_factory.mktemp("data") / "classes"
    return make_dataset(out, 200, target=target, diagnosis=diagnosis)


def test_classes_by_target_are_all_images_of_the_training_part(classes_dataset):
    learning = training_part(classes_dataset, 0, "target")
    assert (learning.rows == classes_dataset.rows("train", 0)).all()
    assert [c.name for c in learning.classes] == ["benign", "malignant"]
    assert (learning.labels == classes_dataset.targets(learning.rows)).all()
    assert [c.count for c in learning.classes] == np.bincount(learning.labels).tolist()


def test_classes_by_diagnosis_leave_out_what_is_missing_or_rare(classes_dataset, capsys):
    learning = training_part(classes_dataset, 0, "diagnosis")
    names = [c.name for c in learning.classes]
    assert names == ["bcc", "df", "mel", "nv"]
    assert [c.target for c in learning.classes] == [1, 0, 1, 0]
    diagnoses = classes_dataset.table["diagnosis"].iloc[learning.rows]
    assert [names[label] for label in learning.labels] == diagnoses.tolist()
    assert "rare" in capsys.readouterr().out


def test_without_classes_only_malignant_images_are_learnt_from(classes_dataset):
    learning = training_part(classes_dataset, 0, "none")
    assert set(classes_dataset.targets(learning.rows)) == {1}
    assert learning.classes == []


def test_one_class_alone_is_refused(dataset):
    with pytest.raises(UserError, match=r"--classes target.*has 1 class"):
        training_part(dataset, 0, "target")


def test_classes_take_turns_and_each_image_comes_once_an_epoch_of_its_class(classes_dataset):
    learning = training_part(classes_dataset, 0, "diagnosis")
    reals = TrainingImages(classes_dataset, learning, seed=0)
    rarest = int(np.bincount(learning.labels).min())
    images, labels = zip(*(reals.batch(step, 8) for step in range(rarest // 2)), strict=True)
    labels = np.concatenate(labels)
    assert (labels == np.arange(len(labels)) % 4).all()
    sums = np.concatenate(images).sum((1, 2, 3), dtype=np.int64)  # no symmetry changes the sum
    rows = learning.rows[learning.labels == np.argmin(np.bincount(learning.labels))]
    expected = classes_dataset.images[rows].sum((1, 2, 3), dtype=np.int64)
    assert sorted(sums[labels == np.argmin(np.bincount(learning.labels))]) == sorted(expected)


def test_shares_of_several_processes_make_up_the_batch(classes_dataset):
    reals = TrainingImages(classes_dataset, training_part(classes_dataset, 0, "target"), seed=0)
    whole = reals.batch(7, 12)
    shares = [reals.batch(7, 12, rank, 3) for rank in range(3)]
    for part in (0, 1):
        assert (np.concatenate([share[part] for share in shares]) == whole[part]).all()


@pytest.fixture(scope="session")
def conditional(classes_dataset, tmp_path_factory, make_run):
    """Finished runs of lesiongan on target and on diagnosis."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        kind: make_run(folder / kind, data=classes_dataset.path, classes=kind)
        for kind in ("target", "diagnosis")
    }


def test_a_conditional_run_says_what_its_classes_are(conditional, classes_dataset):
    description = read_description(conditional["diagnosis"])
    assert description.targets == "diagnosis"
    assert [c.name for c in description.classes] == ["bcc", "df", "mel", "nv"]
    assert sum(c.count for c in description.classes) == len(description.training_ids)


def pool(run, out, **options):
    plain = replace(GenerateOptions(run), count=12, out=out, device="cpu", precision="fp32")
    return load_pool(generate(replace(plain, **options)))


def test_pools_are_made_by_label(conditional, tmp_path):
    run = conditional["target"]
    default, malignant, benign = (
        pool(run, tmp_path / str(label), label=label) for label in (None, "malignant", "benign")
    )
    assert (default.images[:] == malignant.images[:]).all()
    assert (default.images[:] != benign.images[:]).any()
    assert default.info.provenance.label == "malignant"
    assert benign.info.provenance.label == "benign"


def test_a_name_and_a_target_are_labels_of_a_diagnosis_generator(conditional, tmp_path):
    run = conditional["diagnosis"]
    made = {
        label: pool(run, tmp_path / label, label=label) for label in ("mel", "bcc", "malignant")
    }
    mel, bcc, malignant = (made[name].images[:] for name in made)
    of = [(row == mel[i]).all() or (row == bcc[i]).all() for i, row in enumerate(malignant)]
    assert all(of)  # every malignant image is what mel or bcc makes of the same latent


def test_labels_of_a_target_are_drawn_as_often_as_they_were_seen(conditional):
    classes = read_description(conditional["diagnosis"]).classes
    labels = draw_labels(classes, "benign", 2000, 0)
    counts = {c.name: c.count for c in classes}
    assert set(labels) == {1, 3}
    assert (labels == 3).mean() == pytest.approx(
        counts["nv"] / (counts["nv"] + counts["df"]), abs=0.05
    )
    assert (draw_labels(classes, "benign", 10, 0) == labels[:10]).all()


@pytest.mark.slow
def test_benign_images_are_scored_beside_the_malignant_ones(conditional, classes_dataset, capsys):
    run, fold = conditional["target"], classes_dataset.rows("val", 0)
    options = replace(EvaluateOptions(), generator=run, device="cpu", precision="fp32", count=12)
    options = replace(options, tracking="offline")
    results = {label: evaluate(replace(options, label=label)) for label in ("malignant", "benign")}
    for target, label in enumerate(("benign", "malignant")):
        assert results[label]["label"] == label
        assert results[label]["n_real"] == (classes_dataset.targets(fold) == target).sum()
    read = [read_evaluation(run), read_evaluation(run, run / records.FOLDER_BENIGN)]
    assert [one.model_dump() for one in read] == list(results.values())
    for folder in (records.FOLDER, records.FOLDER_BENIGN):
        assert list((run / folder).glob("wandb/offline-run-*")), folder
    assert "not malignant" in (run / records.FOLDER_BENIGN / records.PAGE).read_text()


def test_unknown_labels_are_refused(conditional, run, tmp_path):
    with pytest.raises(UserError, match=r"--label vasc.*malignant, benign, bcc, df, mel, nv"):
        pool(conditional["diagnosis"], tmp_path / "a", label="vasc")
    with pytest.raises(UserError, match="--label benign: this generator makes malignant"):
        pool(run, tmp_path / "b", label="benign")
    assert list(tmp_path.iterdir()) == []


def test_an_architecture_that_needs_classes_takes_the_target(options, classes_dataset):
    out = train(replace(options, arch="acgan", data=classes_dataset.path))
    assert read_description(out).targets == "target"
    assert "classes: target" in (out / "config.yaml").read_text()
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss_class"] > 0 for row in rows)


@pytest.mark.parametrize(("arch", "classes"), [("sngan", "target"), ("acgan", "none")])
def test_an_architecture_that_cannot_do_it_refuses(options, classes_dataset, arch, classes):
    with pytest.raises(UserError, match=f"--classes {classes}"):
        train(replace(options, arch=arch, data=classes_dataset.path, classes=classes))
    assert not options.run.out.exists()


def test_truncation_narrows_what_is_made_and_keeps_the_noise(run, tmp_path):
    wide, narrow = (pool(run, tmp_path / str(psi), truncation=psi) for psi in (1.0, 0.01))
    means = [made.images[:].mean((1, 2)).std(0).mean() for made in (wide, narrow)]
    assert means[1] < means[0]
    assert len({image.tobytes() for image in narrow.images}) == 12
    assert narrow.info.provenance.truncation == 0.01
    for psi in (0.0, 1.5):
        with pytest.raises(UserError, match="--truncation"):
            pool(run, tmp_path / "bad", truncation=psi)
