"""The eight symmetries of the square, of arrays and of tensors."""

import numpy as np
import pytest
import torch

from dermsynth.symmetries import COUNT, turn, turn_each

IMAGE = np.arange(27).reshape(3, 3, 3)


def test_there_are_eight_and_they_are_closed_under_composition():
    versions = {turn(IMAGE, number).tobytes() for number in range(COUNT)}
    assert len(versions) == 8
    assert (turn(IMAGE, 0) == IMAGE).all()
    again = {turn(turn(IMAGE, a), b).tobytes() for a in range(COUNT) for b in range(COUNT)}
    assert again == versions


@pytest.mark.parametrize("number", range(COUNT))
def test_tensors_turn_as_arrays_do(number: int):
    turned = turn(torch.from_numpy(IMAGE), number)
    assert (turned.numpy() == turn(IMAGE, number)).all()


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_each_image_is_turned_in_its_own_way(kind: type):
    images = np.stack([IMAGE, IMAGE + 1, IMAGE + 2])
    turned = turn_each(kind(images), np.array([0, 5, 5]))
    for image, before, number in zip(np.asarray(turned), images, [0, 5, 5], strict=True):
        assert (image == turn(before, number)).all()
