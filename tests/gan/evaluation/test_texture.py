import cv2
import numpy as np
import pytest
import torch

from dermsynth.device import resolve
from gan.evaluation.diagnosis_network import DiagnosisNetwork, early_maps
from gan.evaluation.features import FeatureNetwork, extract
from gan.evaluation.subject import Images
from gan.evaluation.texture import texture, words

CPU = resolve("cpu", "fp32")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return FeatureNetwork("made up", DiagnosisNetwork(3).eval().requires_grad_(False))


def some(make_lesions, synthetic):
    real = make_lesions(140, 64, seed=1)
    return Images(synthetic, real[:90], real[90:], np.arange(140))


def blurred(images, sigma):
    return np.stack([cv2.GaussianBlur(image, (0, 0), sigma) for image in images])


def test_a_blur_of_a_pixel_is_seen_and_new_lesions_are_as_real_ones(make_lesions, network):
    new = make_lesions(60, 64, seed=2)
    good = texture(some(make_lesions, new), early_maps(network), CPU, 0)
    poor = texture(some(make_lesions, blurred(new, 1.0)), early_maps(network), CPU, 0)
    assert good.real == poor.real
    assert good.synthetic.kid < good.real.kid + 4 * good.real.kid_std
    assert poor.synthetic.kid > good.synthetic.kid + 4 * good.synthetic.kid_std
    assert poor.synthetic.kid == pytest.approx(poor.blurred.kid, rel=0.5)
    assert good.spectrum_synthetic < 0.5 < 3 < poor.spectrum_synthetic
    assert "texture" in words(good)[0]
    assert 0 < good.weave_real < 3
    assert words(good)[1].endswith(
        f"weave along the axes: {good.weave_synthetic:.1f} dB (real {good.weave_real:.1f})"
    )
    older = good.model_copy(update={"weave_synthetic": None, "weave_real": None})
    assert "weave" not in words(older)[1]


def test_colours_and_outlines_alone_are_no_texture(make_lesions, network):
    new = make_lesions(60, 64, seed=2).clip(30)
    darker = new - np.array([15, 10, 5], np.uint8)
    features = [extract(images, CPU, "", early_maps(network)) for images in (new, darker)]
    softer = extract(blurred(new, 1.0), CPU, "", early_maps(network))
    by_colour, by_blur = (np.abs(other - features[0]).mean() for other in (features[1], softer))
    assert by_colour < by_blur / 2


def test_without_a_diagnosis_network_the_spectrum_is_left(make_lesions):
    found = texture(some(make_lesions, make_lesions(40, 64, seed=2)), None, CPU, 0)
    assert (found.network, found.synthetic, found.real, found.blurred) == (None,) * 4
    assert len(words(found)) == 1
