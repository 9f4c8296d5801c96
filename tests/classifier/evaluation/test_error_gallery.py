"""Which pictures are shown, and Grad-CAM against torch's own gradients."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from classifier.augment import load_batch
from classifier.evaluation.error_gallery import cam_rows, captions, failures
from classifier.evaluation.grad_cam import OPAQUE, grad_cam, overlay, scale, scale_bar
from classifier.evaluation.page_figures import sheet
from classifier.model.classifier import Classifier, ModelSpec
from classifier.targets import BINARY, Target


def part_of(targets, scores):
    names = [f"i{at}" for at in range(len(targets))]
    return pd.DataFrame({"image_id": names, "target": targets, "score": scores})


def test_the_most_wrong_come_first_and_ties_go_by_name():
    part = part_of([1, 1, 1, 0, 0, 0], [0.9, 0.2, 0.2, 0.1, 0.8, 0.8])
    found = failures(part.iloc[::-1], 2)
    assert found["malignant"]["image_id"].tolist() == ["i1", "i2"]
    assert found["benign"]["image_id"].tolist() == ["i4", "i5"]
    assert found["benign"].index.tolist() == [4, 5]  # rows of the part
    assert len(failures(part)["malignant"]) == 3  # fewer than asked for


def test_hits_misses_and_false_alarms_share_no_image():
    part = part_of([1] * 5 + [0] * 5, [0.9, 0.8, 0.7, 0.3, 0.1, 0.95, 0.6, 0.4, 0.2, 0.05])
    found = cam_rows(part, 4)
    assert found["kind"].tolist() == ["hit"] * 4 + ["miss"] + ["false alarm"] * 4
    assert found["image_id"].tolist() == ["i0", "i1", "i2", "i3", "i4", "i5", "i6", "i7", "i8"]
    assert not found["image_id"].duplicated().any()


def test_captions_name_the_diagnosis_where_it_is_known():
    part = part_of([1, 0], [0.25, 0.5]).assign(diagnosis=["mel", None])
    assert captions(part) == [["i0", "mel", "score 0.250"], ["i1", "score 0.500"]]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Classifier(ModelSpec("efficientnet-lite0", 64, 3)).eval()


def test_grad_cam_is_what_gradients_give(model):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    seen = grad_cam(model, BINARY, images)

    kept = {}

    def keep(module, inputs, output):
        output.retain_grad()
        kept["maps"] = output

    handle = model.top.register_forward_hook(keep)
    logits = model(load_batch(images, 64, None))[:, 0]
    handle.remove()
    logits.sum().backward()
    maps = kept["maps"]
    assert maps.shape[2:] == seen.cells == (2, 2)
    raw = (maps.grad.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach().numpy()
    for heat, cells in zip(seen.heat, raw, strict=True):
        corners = heat[[0, 0, -1, -1], [0, -1, 0, -1]].reshape(2, 2)
        cells -= cells.min()
        np.testing.assert_allclose(corners, cells / cells.max(), atol=1e-3)
    np.testing.assert_allclose(seen.score, torch.sigmoid(logits.detach().double()), atol=1e-6)
    assert seen.heat.shape == (3, 64, 64)


def test_grad_cam_finds_the_half_that_counts():
    """A network that adds up red: the heat lies on the red half and nowhere else."""

    class Red(nn.Module):
        spec = ModelSpec("red", 32)

        def __init__(self):
            super().__init__()
            self.top = nn.Conv2d(3, 1, 1, bias=False)
            self.top.weight.data = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)

        def forward(self, x, metadata):
            return torch.relu(self.top(x)).mean((2, 3))

    image = np.full((1, 32, 32, 3), 90, np.uint8)
    image[:, :, 16:, 0] = 250
    image[:, :, 16:, 1:] = 10
    heat = grad_cam(Red(), BINARY, image).heat[0]
    assert heat[:, 18:].min() > 0.95
    assert heat[:, :14].max() < 0.05


def test_of_several_classes_it_is_the_log_odds_of_the_malignant_ones():
    torch.manual_seed(0)
    target = Target("diagnosis", ("bcc", "mel", "nv"), (True, True, False))
    model = Classifier(ModelSpec("efficientnet-lite0", 64, outputs=3)).eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    seen = grad_cam(model, target, images)
    with torch.no_grad():
        expected = target.scores(target.probabilities(model(load_batch(images, 64, None))))
    np.testing.assert_allclose(seen.score, expected, atol=1e-6)


def test_no_hooks_and_no_gradients_stay_behind(model):
    before = [p.requires_grad for p in model.parameters()]
    grad_cam(model, BINARY, np.zeros((1, 64, 64, 3), np.uint8))
    assert not model.top._forward_hooks
    assert [p.requires_grad for p in model.parameters()] == before


def test_an_image_without_evidence_stays_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(overlay(image, np.zeros((20, 20), np.float32)), image)
    half = np.zeros((20, 20), np.float32)
    half[:, 10:] = 1
    drawn = overlay(image, half)
    np.testing.assert_array_equal(drawn[:, :15], image[:, :15])
    assert np.abs(drawn[:, 25:].astype(int) - image[:, 25:]).mean() > 20


def test_the_scale_has_the_colours_of_the_overlay():
    grey, heat = np.full((8, 8, 3), 128, np.uint8), np.ones((8, 8), np.float32)
    red, green, blue = (253, 231, 37)  # the end of viridis
    assert scale()[-1] == f"rgb({red} {green} {blue} / {OPAQUE:.0%})"
    mixed = 128 * (1 - OPAQUE) + np.array([red, green, blue]) * OPAQUE
    np.testing.assert_allclose(overlay(grey, heat)[4, 4], mixed, atol=1)
    np.testing.assert_array_equal(overlay(grey, 0 * heat), grey)
    assert scale()[0].endswith("/ 0%)")


def test_a_sheet_of_overlays_has_their_scale_below(tmp_path):
    rows = [("found", [np.full((16, 16, 3), 128, np.uint8)] * 2, ["a\nb\nc", "Grad-CAM"])] * 3
    plain, scaled = (
        Image.open(_sheet(rows, tmp_path / name, bar))
        for name, bar in (("plain.png", None), ("scaled.png", scale_bar()))
    )
    assert scaled.width == plain.width
    assert scaled.height > plain.height
    below = np.asarray(scaled.convert("RGB"))[plain.height :].reshape(-1, 3)
    most = scale_bar()[0, -1]
    assert (below == most).all(axis=1).any()
    assert tuple(scale_bar()[0, 0]) == (255, 255, 255)


def _sheet(rows, path, bar):
    sheet(rows, path, bar)
    return path
