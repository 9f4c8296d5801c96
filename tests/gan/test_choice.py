import pytest
import torch
from torch import nn

from data.provenance import ScoredRecord
from gan.choice import Choice


def shown(choice, kids, spread=0.1, network="imagenet"):
    """Consider generators whose only weight is their number."""
    kept = []
    for kid in kids:
        generator = nn.Linear(1, 1)
        nn.init.constant_(generator.weight, kid)
        score = ScoredRecord(kimg=1, kid=kid, spread=spread, network=network)
        kept.append(choice.consider(generator, score))
    return kept


@pytest.mark.parametrize(
    ("kids", "chosen"),
    [
        ([3, 2, 1], 1),  # gets better: the last
        ([3, 1, 2], 1),  # gets worse: the best
        ([3, 1, 1.05], 1.05),  # worse by less than a standard error: the latest
        ([1, 1.05, 0.9, 1.2], 0.9),  # the bound follows the lowest
    ],
)
def test_the_latest_within_a_standard_error_of_the_lowest_is_kept(kids, chosen):
    choice = Choice()
    shown(choice, kids)
    assert choice.chosen.kid == chosen
    assert choice.weights["weight"].item() == pytest.approx(chosen)
    assert Choice.restored(choice.state()) == choice


def test_scores_of_another_network_begin_anew():
    choice = Choice()
    shown(choice, [0.1])
    assert shown(choice, [5.0], network="diagnosis") == [True]
    assert [one.kid for one in choice.scored] == [5.0]


def test_without_scores_nothing_is_chosen():
    assert Choice().chosen is None


def test_what_is_kept_does_not_change_with_the_network():
    choice, generator = Choice(), nn.Linear(1, 1)
    score = ScoredRecord(kimg=1, kid=1, spread=0, network="imagenet")
    choice.consider(generator, score)
    before = choice.weights["weight"].clone()
    with torch.no_grad():
        generator.weight.add_(1)
    assert torch.equal(choice.weights["weight"], before)
