import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from classifier import onnx_graph
from classifier.export import ExportOptions, export
from classifier.model.classifier import Classifier, ModelSpec
from classifier.model.metadata_inputs import MetadataInputs
from classifier.model.weights import load_weights
from classifier.records import (
    VERSION,
    MetricsRecord,
    ModelRecord,
    RunRecord,
    SpecRecord,
    TargetRecord,
)
from classifier.run_folder import open_run
from classifier.targets import BINARY, Target
from classifier.trained import load_trained
from data.metadata import MetadataEncoder
from data.store import Look, write_dataset
from dermsynth import cli, device
from dermsynth.errors import UserError
from dermsynth.manifest import seal
from dermsynth.records import write_record

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")


def write_run(
    out, model, target, data, metrics=None, leaky=None, inputs=None, epoch=3, options=None
):
    """A run's folder as classifier.train leaves it, without the training."""
    out.mkdir()
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, out / "model.safetensors")
    about = ModelRecord(
        schema_version=VERSION,
        spec=SpecRecord(**dataclasses.asdict(model.spec)),
        target=TargetRecord(**dataclasses.asdict(target)),
        augment="none",
        leaky=leaky,
        look=data.info.look,
        mean=tuple(model.backbone.mean.flatten().tolist()),
        std=tuple(model.backbone.std.flatten().tolist()),
        temperature=None,
        class_temperature=None,
        thresholds=None,
        columns=(),
    )
    facts = RunRecord(
        best_epoch=epoch,
        epochs=epoch,
        steps=epoch,
        training_seconds=1.0,
        weights_sha256="0" * 64,
        computed_on="cpu",
        folds_hash=data.folds_hash,
        externals={},
        training_images={},
        pool=None,
        licence=data.info.facts.get("licence"),
        leaky=leaky,
        versions={},
    )
    write_record(out / "model.json", about)
    write_record(out / "run.json", facts)
    write_record(out / "metrics.json", MetricsRecord(metrics or {}))
    if inputs:
        inputs.save(out)
    seal(out, "classifier", {}, {"dataset": data.as_input}, options or {})
    return out


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    spec = ModelSpec("efficientnet-lite0", 32, 7)
    model = Classifier(spec)
    load_weights(model.backbone, spec.backbone, "imagenet", 32)
    return model


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory, model):
    out = tmp_path_factory.mktemp("cls") / "run"
    return write_run(out, model, BINARY, tiny, {"val": {"auc": 0.91234}, "test": {"auc": None}})


@pytest.fixture(scope="module")
def file(run, tmp_path_factory):
    """The run, exported once; tests must not change it."""
    out = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert 0 <= export(ExportOptions(run, out)) < 1e-4
    return out


def _known_graph(file, monkeypatch):
    """Exporting is slow: what does not test it takes the graph of an exported file."""
    graph = onnx.load(file)
    del graph.metadata_props[:]
    monkeypatch.setattr(onnx_graph, "to_onnx", lambda _: graph)


def test_the_file_gives_the_scores_of_predict_for_any_number_of_images(file, run, tiny):
    session = onnxruntime.InferenceSession(file)
    (one,), (other,) = session.get_inputs(), session.get_outputs()
    assert (one.name, one.type, one.shape[1:]) == ("images", "tensor(float)", [3, 32, 32])
    assert (other.name, other.type, len(other.shape)) == ("malignant", "tensor(float)", 1)
    assert isinstance(one.shape[0], str)  # a name, so any number
    trained = load_trained(run)
    compute = device.resolve("cpu", "fp32")
    for n in (1, 2, 5, 17):
        images = np.array(tiny.images[:n])
        ready = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) / 255
        (found,) = session.run(None, {"images": ready})
        assert found.dtype == np.float32
        assert found.shape == (n,)
        np.testing.assert_allclose(found, trained.scores(images, compute), atol=1e-5)
    assert np.ptp(found) > 1e-3  # they are not all alike
    onnx.checker.check_model(onnx.load(file), full_check=True)


def test_figures_of_means_over_views_are_said_to_be_those(run, tiny, tmp_path, model):
    assert "views" not in onnx_graph.about(open_run(run), load_trained(run))
    other = write_run(tmp_path / "run", model, BINARY, tiny, options={"tta": "clinics"})
    assert "--tta clinics" in onnx_graph.about(open_run(other), load_trained(other))["views"]


def test_a_run_of_several_diagnoses_gives_all_of_them(tiny, tmp_path):
    torch.manual_seed(1)
    target = Target("diagnosis", ("bcc", "mel", "nv"), (True, True, False))
    spec = ModelSpec("vanilla-cnn", 32, outputs=3)
    model = Classifier(spec)
    out = write_run(tmp_path / "run", model, target, tiny)
    assert export(ExportOptions(out, tmp_path / "m.onnx")) < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    images = np.random.default_rng(0).random((4, 3, 32, 32), np.float32)
    malignant, classes = session.run(["malignant", "classes"], {"images": images})
    with torch.no_grad():
        expected = torch.softmax(model.eval()(torch.from_numpy(images)), 1)
    np.testing.assert_allclose(classes, expected, atol=1e-5)
    np.testing.assert_allclose(malignant, expected[:, :2].sum(1), atol=1e-5)
    assert session.get_modelmeta().custom_metadata_map["classes"] == "bcc,mel,nv"


def test_age_sex_and_site_are_a_second_input_that_the_file_explains(tiny, tmp_path):
    rng = np.random.default_rng(0)
    n = len(tiny.table)
    table = tiny.table.assign(
        age=rng.choice([20.0, 45.0, np.nan], n), sex=rng.choice(["female", "male"], n), site="leg"
    )
    data = write_dataset(tmp_path / "people", np.asarray(tiny.images), table, {})
    fitted = data.table[["image_id", "age", "sex", "site"]]
    metadata_inputs = MetadataInputs(fitted, MetadataEncoder().fit(fitted), np.empty(0, np.int64))
    spec = ModelSpec("vanilla-cnn", 32, head="metadata", columns=metadata_inputs.width)
    out = write_run(tmp_path / "run", Classifier(spec), BINARY, data, inputs=metadata_inputs)
    export(ExportOptions(out, tmp_path / "m.onnx"))
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert [each.name for each in session.get_inputs()] == ["images", "columns"]
    rows = np.flatnonzero(table["age"].notna())[:7]
    columns = np.zeros((len(rows), metadata_inputs.width), np.float32)  # by the file's own words
    told = json.loads(session.get_modelmeta().custom_metadata_map["columns"])
    for at, feature in enumerate(told):
        if feature["name"] == "age":
            age = table["age"].to_numpy(float)[rows]
            columns[:, at] = (age - feature["mean"]) / feature["deviation"]
        else:
            columns[:, at] = table[feature["column"]].iloc[rows] == feature["value"]
    images = np.asarray(data.images[rows])
    ready = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32) / 255
    (found,) = session.run(None, {"images": ready, "columns": columns})
    compute = device.resolve("cpu", "fp32")
    expected = load_trained(out).scores(images, compute, 1, data, rows)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 1e-4


def _metadata(file):
    return onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map


def test_the_file_says_how_to_prepare_images_and_what_it_is_worth(file):
    about = _metadata(file)
    assert about["class"] == "malignant"
    assert about["size"] == "32"
    assert about["prepare"] == "centre crop to a square, Lanczos to 32 px, RGB / 255"
    assert about["clean"] == "none"
    assert about["best_epoch"] == "3"
    assert about["val_auc"] == "0.9123"
    assert about["licence_of_training_images"] == "unknown"
    assert not {"test_auc", "leaky"} & set(about)


def test_leak_licence_and_another_crop_are_in_the_file(file, model, tiny, tmp_path, monkeypatch):
    _known_graph(file, monkeypatch)
    look = Look(size=32, fit="letterbox", clean=("hair",))
    info = {"look": look, "licence": "CC-0"}
    data = write_dataset(tmp_path / "boxed", np.asarray(tiny.images), tiny.table, info)
    other = write_run(tmp_path / "run", model, BINARY, data, leaky="it saw s0-0001", epoch=1)
    write_dataset(data.path, np.asarray(tiny.images), tiny.table, {}, overwrite=True)
    export(ExportOptions(other, tmp_path / "other.onnx"))
    about = _metadata(tmp_path / "other.onnx")
    assert about["leaky"].endswith("it saw s0-0001")
    assert about["licence_of_training_images"] == "CC-0"
    assert about["fit"] == "letterbox"
    assert about["prepare"].startswith("black bars to a square")
    assert about["clean"] == "hair"


@pytest.mark.parametrize("fault", ["weights", "nan"])
def test_a_file_that_differs_from_torch_is_not_written(file, run, tmp_path, monkeypatch, fault):
    graph = onnx.load(file)
    for weights in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(weights)
        if values.ndim == 4:  # a convolution
            values = values * 1.01 if fault == "weights" else values * np.nan
            weights.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weights.name))
    monkeypatch.setattr(onnx_graph, "to_onnx", lambda _: graph)
    out = tmp_path / "model.onnx"
    out.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"differ by .*nothing was written"):
        export(ExportOptions(run, out, overwrite=True))
    assert out.read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_missing_packages_are_named_with_the_command(run, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package}.*pip install .*\[onnx\]"):
        export(ExportOptions(run, tmp_path / "model.onnx"))


def test_bad_input_is_told_and_nothing_is_written(file, run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "model.onnx"
    options = ExportOptions(run, out)

    def refused(match, **changes):
        with pytest.raises(UserError, match=match):
            export(dataclasses.replace(options, **changes))
        assert not out.exists()

    refused("no finished run", run=tmp_path)
    refused("ends in .onnx", out=tmp_path / "model.pt")
    folds = tmp_path / "folds"
    folds.mkdir()
    seal(folds, "classifier-folds", {})
    refused("holds no model.safetensors; give a run of one fold", run=folds)
    damaged = shutil.copytree(run, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"0" * 100)
    refused("model.safetensors: it is not what was written", run=damaged)
    out.write_bytes(b"mine")
    monkeypatch.setattr("sys.argv", ["export", "--run", str(run), "--out", str(out)])
    with pytest.raises(SystemExit) as stop:
        cli.run(ExportOptions, export, "classifier.export", "")
    assert stop.value.code == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"
    _known_graph(file, monkeypatch)
    export(dataclasses.replace(options, overwrite=True))
    assert out.stat().st_size > 1e6
