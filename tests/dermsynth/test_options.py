"""Groups of options with flat names."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dermsynth.errors import UserError
from dermsynth.options import RunOptions, as_plain, flat, refuse_idle, replace


@dataclass(frozen=True)
class Loss:
    name: str = "cross-entropy"
    gamma: float = 2.0


@dataclass(frozen=True)
class Options:
    data: Path
    epochs: int = 5
    loss: Loss = field(default_factory=Loss)
    run: RunOptions = field(default_factory=RunOptions)


OPTIONS = Options(Path("images"))


def test_names_are_flat_and_in_order():
    assert list(flat(OPTIONS)) == [
        *("data", "epochs", "name", "gamma", "out", "overwrite", "tracking", "resume")
    ]
    assert as_plain(OPTIONS)["data"] == "images"


def test_a_copy_with_other_values_reaches_into_groups():
    changed = replace(OPTIONS, epochs=7, gamma=1.0, out=Path("x"))
    assert changed == Options(Path("images"), 7, Loss(gamma=1.0), RunOptions(Path("x")))
    assert OPTIONS.loss.gamma == 2.0
    with pytest.raises(TypeError, match="Options has no option gama"):
        replace(OPTIONS, gama=1.0)


def test_two_groups_may_not_share_a_name():
    @dataclass(frozen=True)
    class Twice:
        loss: Loss = field(default_factory=Loss)
        gamma: float = 1.0

    with pytest.raises(TypeError, match="two groups have an option gamma"):
        flat(Twice())


def test_an_option_without_effect_is_refused_by_name():
    needs = {"gamma": (False, "--name focal")}
    refuse_idle(OPTIONS, needs)  # as by default
    changed = replace(OPTIONS, gamma=3.0)
    refuse_idle(changed, {"gamma": (True, "--name focal")})
    with pytest.raises(UserError, match=r"--gamma 3.0: has an effect with --name focal only"):
        refuse_idle(changed, needs)
