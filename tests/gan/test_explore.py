import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dermsynth.device import Compute
from dermsynth.errors import UserError
from dermsynth.manifest import open_sealed
from dermsynth.options import replace
from gan.exploration import COLUMNS, KIND, ROWS, Projection, project, read_image, slerp
from gan.explore import ExploreOptions, explore
from gan.sampling import render
from gan.weights import load_generator, open_generator

CPU = Compute(torch.device("cpu"), "fp32")


@pytest.fixture
def options(run, tmp_path):
    return replace(ExploreOptions(run), out=tmp_path / "seen", device="cpu", precision="fp32")


def cells(path, size=32):
    grid = np.asarray(Image.open(path))
    return grid.reshape(ROWS, size, COLUMNS, size, 3).swapaxes(1, 2).astype(int)


@given(st.integers(2, 50), st.floats(0, 1), st.integers(0, 1000))
def test_a_walk_stays_on_the_sphere_and_ends_where_it_should(dim, share, seed):
    a, b = np.random.default_rng(seed).standard_normal((2, dim))
    b *= np.linalg.norm(a) / np.linalg.norm(b)
    assert np.linalg.norm(slerp(a, b, share)) == pytest.approx(np.linalg.norm(a), rel=1e-6)
    np.testing.assert_allclose(slerp(a, b, 0.0), a, atol=1e-9)
    np.testing.assert_allclose(slerp(a, b, 1.0), b, atol=1e-9)
    np.testing.assert_allclose(slerp(a, a, share), a, atol=1e-9)


def test_galleries_walk_in_small_steps_and_grow_from_one_image(options):
    out = explore(options)
    walks, truncated = cells(out / "interpolation.png"), cells(out / "truncation.png")
    steps = np.abs(np.diff(walks, axis=1)).mean((2, 3, 4))
    across = np.abs(walks[:, 0] - walks[:, -1]).mean((1, 2, 3))
    assert (steps > 0).all()
    assert (steps < across[:, None] + 1).all()
    spread = truncated.mean((2, 3)).std(0).mean(1)  # of the six rows' colours, a column
    assert spread[0] <= spread[-1]


def test_an_image_of_the_generators_own_is_found_again(run):
    network, _ = load_generator(run)
    z = np.random.default_rng(3).standard_normal((1, network.latent_dim)).astype(np.float32)
    own = render(network, z, CPU)[0]
    started, found = (project(network, own, None, steps, 0, CPU)[1] for steps in (1, 60))
    assert found < started
    made, distance = project(network, own, None, 20, 0, CPU)
    rms = np.sqrt(np.square(made.astype(float) - own).mean())
    assert rms == pytest.approx(distance, abs=0.5)


def test_a_projection_is_written_beside_the_image(options, make_lesions, tmp_path):
    path = tmp_path / "real.png"
    Image.fromarray(make_lesions(1, 48)[0]).save(path)
    out = explore(replace(options, image=path, steps=5))
    pair = np.asarray(Image.open(out / "projection.png"))
    assert pair.shape == (32, 64, 3)
    assert (pair[:, :32] == read_image(path, 32)).all()
    assert 0 < json.loads((out / "projection.json").read_text())["distance"] < 255


def test_pictures_are_replaced_and_never_anything_else(options, run, make_lesions, tmp_path):
    path = tmp_path / "real.png"
    Image.fromarray(make_lesions(1, 48)[0]).save(path)
    out = explore(replace(options, image=path, steps=2))
    first = open_sealed(out, KIND, "", "")
    assert first.manifest.inputs["generator"].id == open_generator(run).identity.id
    assert first.record("projection.json", Projection).image == str(path)
    explore(options)
    assert sorted(path.name for path in out.iterdir()) == [
        *("interpolation.png", "manifest.json", "truncation.png")
    ]
    other = tmp_path / "photos"
    other.mkdir()
    (other / "holiday.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="is not overwritten"):
        explore(replace(options, out=other))


def test_bad_input_is_refused_before_anything_is_written(options, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    for change, message in (
        ({"image": tmp_path / "text.png"}, "cannot be read as an image"),
        ({"image": tmp_path / "none.png"}, "cannot be read as an image"),
        ({"label": "benign"}, "--label benign"),
        ({"steps": 0}, "--steps 0"),
        ({"steps": 9}, "--steps 9: has an effect with --image only"),
        ({"generator": tmp_path}, "no GAN run"),
    ):
        with pytest.raises(UserError, match=message):
            explore(replace(options, **change))
    assert not options.out.exists()
