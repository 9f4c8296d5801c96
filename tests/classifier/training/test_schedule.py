import numpy as np
import pytest
import torch

from classifier.options import TrainOptions
from classifier.training import schedule
from classifier.training.schedule import Plateau, best_epoch, learning_rate
from dermsynth.options import replace

OPTIONS = replace(TrainOptions(), epochs=8, lr=1e-3)
PER_EPOCH = 25


def rates(history=(), **changes):
    options = replace(OPTIONS, **changes)
    plateau = Plateau(options.steps, options.choice)
    for row in history:
        plateau.update(row)
    steps = range(8 * PER_EPOCH)
    return np.array([learning_rate(options.steps, s, PER_EPOCH, plateau.rate) for s in steps])


def rows(values, key="val_auc"):
    return [{"epoch": at + 1, key: value} for at, value in enumerate(values)]


def test_one_cycle_rises_for_a_quarter_and_falls_to_nothing():
    found = rates()
    assert found[0] == pytest.approx(4e-5)
    assert found.argmax() in range(49, 51)
    assert found[-1] == pytest.approx(0, abs=1e-9)


def test_constant_and_cosine_after_a_warm_up():
    constant = rates(schedule="constant", warm_up=2.0)
    np.testing.assert_allclose(constant[:50], 1e-3 * np.arange(1, 51) / 50)
    np.testing.assert_allclose(constant[50:], 1e-3)
    cosine = rates(schedule="cosine", warm_up=0.0)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8 * PER_EPOCH - 1)
    for rate in cosine:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        reference.step()


def test_exponential_rises_holds_and_decays_by_epochs():
    found = rates(schedule="exponential", warm_up=3, hold=2, decay=0.5, lr_start=1e-4, lr_min=1e-5)
    by_epoch = found[::PER_EPOCH]
    np.testing.assert_allclose(np.repeat(by_epoch, PER_EPOCH), found)
    expected = [1e-4, 4e-4, 7e-4, 1e-3, 1e-3, 1e-3]
    expected += [1e-5 + 0.5 * (1e-3 - 1e-5), 1e-5 + 0.25 * (1e-3 - 1e-5)]
    np.testing.assert_allclose(by_epoch, expected)


@pytest.mark.parametrize("monitor", ["auc", "loss"])
def test_plateau_lowers_the_rate_where_nothing_improves(monitor):
    changes = {"schedule": "plateau", "warm_up": 0.0, "factor": 0.4, "plateau_patience": 1}
    values = [0.5, 0.6, 0.6, 0.6, 0.7, 0.7, 0.7]
    key = "val_auc"
    if monitor == "loss":
        values, key = [1 - value for value in values], "val_loss"
    expected = [1, 1, 1, 0.4, 0.4, 0.4, 0.16]
    for count, factor in enumerate(expected, 1):
        history = rows(values[:count], key)
        found = rates(history, monitor=monitor, **changes)[-1]
        assert found == pytest.approx(1e-3 * factor), count


def test_the_head_alone_has_a_rate_of_its_own_and_the_schedule_begins_after():
    found = rates(head_epochs=2, head_lr=0.05)
    assert (found[: 2 * PER_EPOCH] == 0.05).all()
    whole = replace(OPTIONS, epochs=6).steps
    later = [learning_rate(whole, step, PER_EPOCH, 1e-3) for step in range(6 * PER_EPOCH)]
    np.testing.assert_allclose(found[2 * PER_EPOCH :], later)


def test_best_epoch():
    history = rows([0.6, 0.8, 0.8, 0.7])
    assert best_epoch(history, "auc") == 2
    assert best_epoch(rows([3, 1, 2, 1], "val_loss"), "loss") == 2
    assert best_epoch([], "auc") == 0
    # small steps do not count as better, large ones do
    assert best_epoch(rows([0.6, 0.605, 0.61, 0.62]), "auc", 0.015) == 4
    assert best_epoch(rows([0.6, 0.605, 0.61]), "auc", 0.015) == 1


def test_the_drawn_rate_is_the_one_of_the_steps():
    """With a plateau too, whose fall is that of the history."""
    changes = {"schedule": "plateau", "warm_up": 1.0, "factor": 0.1, "plateau_patience": 0}
    options = replace(OPTIONS, **changes)
    history = rows([0.6, 0.7, 0.7, 0.8])
    places, values = schedule.rates(options.steps, options.choice, history, PER_EPOCH)
    assert (places[0], places[-1]) == (0, 4 - 1 / PER_EPOCH)
    found = dict(zip(places, values, strict=True))
    warm = [learning_rate(options.steps, step, PER_EPOCH, 1e-3) for step in range(PER_EPOCH)]
    assert [found[step / PER_EPOCH] for step in range(PER_EPOCH)] == warm
    np.testing.assert_allclose([found[1.0], found[2.0], found[3.0]], [1e-3, 1e-3, 1e-4])
