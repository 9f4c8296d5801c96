import numpy as np
import pytest

from classifier.options import TrainOptions
from classifier.training.pools import open_pool
from data.pool import write_pool
from data.provenance import Provenance
from dermsynth.options import replace


@pytest.fixture
def opened(tiny, tmp_path, capsys):
    """What is printed when a pool of these images is opened."""

    def opened(images: np.ndarray) -> str:
        drawn = Provenance(kind="declared", statement="drawn")
        pool = write_pool(tmp_path / "pool", images, drawn, overwrite=True)
        capsys.readouterr()
        open_pool(replace(TrainOptions(), data=tiny.path, size=32), tiny, pool.path, 20)
        return capsys.readouterr().out

    return opened


def test_a_pool_of_one_colour_is_warned_about_in_one_line(opened, tmp_path):
    said = opened(np.full((30, 32, 32, 3), (140, 90, 140), np.uint8))
    assert said.startswith(f"warning: {tmp_path / 'pool'}: 100% of the images are all but one flat")
    assert said.count("\n") == 1


def test_images_like_the_real_ones_are_not(opened, make_images):
    assert opened(make_images(np.ones(30), 32, seed=5)) == ""
