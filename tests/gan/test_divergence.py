import json
import math

import pytest

import gan.divergence
import gan.loop
import gan.scorer
import gan.train
import gan.training_run
from dermsynth.errors import UserError
from dermsynth.options import replace
from gan.divergence import ADVICE, PATIENCE, DivergenceMonitor
from gan.train import train
from gan.weights import read_description

GOOD = {"loss_d": 1.2, "loss_g": 0.3, "diversity": 0.8}


def complaints(watch, *rows):
    return [watch.complaint(GOOD | row) for row in rows]


def test_a_number_that_is_none_is_said_at_once():
    for value in (math.nan, math.inf):
        assert complaints(DivergenceMonitor("hinge"), {"loss_g": value}) == ["not a number"]


def test_what_lasts_is_said_once_and_what_passes_is_not():
    for row, what in (({"loss_d": 1e-3}, "discriminator wins"), ({"diversity": 0.01}, "collapse")):
        assert complaints(DivergenceMonitor("hinge"), *[row] * PATIENCE) == [None] * (
            PATIENCE - 1
        ) + [what]
        passing = ([row] * (PATIENCE - 1) + [{}]) * 2
        assert complaints(DivergenceMonitor("hinge"), *passing) == [None] * 2 * PATIENCE


def test_a_wasserstein_critic_cannot_win():
    assert set(
        complaints(DivergenceMonitor("wasserstein"), *[{"loss_d": -9.0}] * 2 * PATIENCE)
    ) == {None}


def test_counts_go_on_where_they_stopped():
    watch = DivergenceMonitor("hinge")
    complaints(watch, *[{"diversity": 0.0}] * (PATIENCE - 1))
    assert (
        DivergenceMonitor("hinge", watch.counts).complaint(GOOD | {"diversity": 0.0}) == "collapse"
    )


def collapse(monkeypatch):
    """Every row is one of a collapsed generator, and one is enough."""
    monkeypatch.setattr(gan.loop, "LOG_STEPS", 2)
    monkeypatch.setattr(gan.loop, "WATCHED_STEPS", 2)
    monkeypatch.setattr(gan.divergence, "PATIENCE", 1)
    monkeypatch.setattr(gan.divergence, "COLLAPSED", math.inf)


def test_collapse_stops_training_with_advice(options, monkeypatch):
    collapse(monkeypatch)
    with pytest.raises(UserError, match=r"before step 2: the generator makes one.*--batch"):
        train(options)
    assert not (options.run.out / "generator.json").exists()


def test_collapse_can_be_let_pass(options, monkeypatch, capsys):
    collapse(monkeypatch)
    train(replace(options, divergence="warn"))
    assert ADVICE["collapse"] in capsys.readouterr().out
    assert (options.run.out / "generator.json").exists()


@pytest.mark.slow
def test_scores_come_evenly_and_the_latest_of_the_best_is_shipped(options, run, monkeypatch):
    kids = iter([0.30, 0.10, 0.12, 0.2])
    spreads = iter([0.05, 0.03, 0.03, 0.03])

    def kid(*_):
        return next(kids)

    monkeypatch.setattr(gan.scorer, "SCORED", 16)
    monkeypatch.setattr(gan.scorer, "kid", kid)
    monkeypatch.setattr(gan.scorer, "kid_spread", lambda *_: next(spreads))
    train(replace(options, evaluations=4, kimg=0.064, batch=8))  # eight steps
    rows = [
        json.loads(line) for line in (options.run.out / "metrics.jsonl").read_text().splitlines()
    ]
    scored = [row for row in rows if "kid_imagenet" in row]
    assert [(row["step"], row["kept"]) for row in scored] == [(2, 1), (4, 1), (6, 1), (8, 0)]
    record = read_description(options.run.out)
    assert record.shipped_kimg == pytest.approx(0.048)
    assert [one.kid for one in record.scored] == [0.30, 0.10, 0.12, 0.2]

    # it is that generator: the same as of a training that ends there
    ended = replace(options, evaluations=0, kimg=0.048, batch=8, out=options.run.out.parent / "six")
    train(ended)
    shipped, six = (
        (path / "generator.safetensors").read_bytes() for path in (options.run.out, ended.run.out)
    )
    assert shipped == six
    assert read_description(ended.run.out).shipped_kimg is None


def test_ctrl_c_while_the_network_that_chooses_learns_says_how_to_go_on(options, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(gan.training_run, "scorer", stopped)
    with pytest.raises(KeyboardInterrupt, match=r"before the first step; .*--resume` goes on"):
        train(replace(options, evaluations=1))
    monkeypatch.undo()
    train(replace(options, evaluations=1, resume=True))
    assert (options.run.out / "generator.json").exists()
