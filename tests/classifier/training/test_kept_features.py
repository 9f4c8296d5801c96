"""Features that several processes share: the same ones, each computed once, none half written."""

import errno
import multiprocessing
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from classifier.model.classifier import Classifier, ModelSpec
from classifier.options import AugmentationOptions
from classifier.training import kept_features
from classifier.training.kept_features import KeptFeatures, SharedFeatures
from classifier.training.trunk_cache import PLAIN, FeatureCache, ImageSet, Trunk
from dermsynth.device import resolve

SHAPE = (50, 3, 2, 2, 4)  # images, views, height, width, channels


def make_trunk(cache: FeatureCache) -> Trunk:
    torch.manual_seed(0)
    model = Classifier(ModelSpec("efficientnet-lite0", 32, 4)).eval()
    return Trunk(model, resolve("cpu", "fp32"), cache, AugmentationOptions(views=3))


def pairs(count: int = 50) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(np.arange(count), 3), np.tile(np.arange(3), count)


def values(rows: np.ndarray, views: np.ndarray) -> torch.Tensor:
    numbers = torch.from_numpy(rows * 10.0 + views).float()
    return numbers[:, None, None, None].expand(-1, *SHAPE[2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_one_wrote_another_reads(tmp_path: Path, dtype: torch.dtype):
    one, other = (SharedFeatures(tmp_path, "name", SHAPE, dtype) for _ in range(2))
    rows, views = np.array([3, 7, 7]), np.array([0, 1, PLAIN])
    one.put(rows, views, values(rows, views).to(dtype))
    assert not other.missing(rows, views).any()
    assert torch.equal(other.take(rows, views), one.take(rows, views))
    assert other.missing(*pairs()).sum() == 150 - 3
    assert SharedFeatures(tmp_path, "other", SHAPE, dtype).missing(*pairs()).all()


@pytest.mark.parametrize("wrong", ["value", "mark", "no mark"])
def test_a_damaged_row_is_missing(tmp_path: Path, wrong: str):
    one = SharedFeatures(tmp_path, "name", SHAPE, torch.float32)
    one.put(*pairs(), values(*pairs()))
    if wrong == "value":  # a process was killed in the middle of a row that it wrote again
        one._bytes[4, 1, 9] ^= 1
    else:
        one._marks[4, 1] = 0 if wrong == "no mark" else zlib.crc32(b"other")
    missing = SharedFeatures(tmp_path, "name", SHAPE, torch.float32).missing(*pairs())
    assert np.flatnonzero(missing).tolist() == [4 * 3 + 1]


def write(folder: Path, number: int) -> None:
    mine = SharedFeatures(folder, "name", SHAPE, torch.float32)
    for place in np.random.default_rng(number).permutation(150):
        row, view = pairs()[0][[place]], pairs()[1][[place]]
        if mine.missing(row, view).any():
            mine.put(row, view, values(row, view))
        assert torch.equal(mine.take(row, view), values(row, view))


def test_several_processes_write_the_same(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(tmp_path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    found = SharedFeatures(tmp_path, "name", SHAPE, torch.float32)
    assert not found.missing(*pairs()).any()
    assert torch.equal(found.take(*pairs()), values(*pairs()))


def test_a_full_disk_costs_time_and_nothing_else(tmp_path: Path, monkeypatch, capsys, tiny):
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kept_features.os, "posix_fallocate", full)
    images = ImageSet.stored("real", tiny)
    trunk = make_trunk(FeatureCache(1, tmp_path))
    assert trunk.keeps(images)
    assert type(trunk._store(images)) is KeptFeatures
    assert "no room" in capsys.readouterr().out


def test_a_second_process_has_nothing_to_compute(tmp_path: Path, monkeypatch, tiny):
    images, rows, views = ImageSet.stored("real", tiny), np.arange(20), np.zeros(20, int)
    first = make_trunk(FeatureCache(1, tmp_path)).features(images, rows, views)
    again = make_trunk(FeatureCache(1, tmp_path))
    monkeypatch.setattr(again, "_run", None)
    assert torch.equal(again.features(images, rows, views), first)
    in_memory = make_trunk(FeatureCache(1))
    assert torch.equal(in_memory.features(images, rows, views), first)


def test_work_that_others_did_meanwhile_is_left_out(tmp_path: Path, monkeypatch, tiny):
    images, rows, views = ImageSet.stored("real", tiny), np.arange(120), np.zeros(120, int)
    one, other = (make_trunk(FeatureCache(1, tmp_path)) for _ in range(2))
    filling = one.fill(images, one.missing(images, rows, views))
    done = next(filling)
    list(other.fill(images, other.missing(images, rows, views)))
    monkeypatch.setattr(one, "_run", None)
    assert done + sum(filling) == 120
