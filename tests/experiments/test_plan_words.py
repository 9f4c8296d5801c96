"""The plan on the screen: every number with the right word after it."""

import pytest

from dermsynth.errors import counted
from experiments.cost import Cost
from experiments.plan import PlanRecord, Visible, describe


def plan(minutes: float, count: int) -> PlanRecord:
    return PlanRecord(
        made="2026-11-28T04:40:27+00:00",
        design_sha256="ab" * 32,
        design={},
        cost=Cost(
            n_trainings=12,
            n_generators=count,
            n_synthetic_images=count,
            minutes_generators=minutes,
            minutes_evaluations=minutes,
            minutes_trainings=minutes,
            disk_bytes=3 * 2**20,
            measured_on="cpu",
        ),
        visible=Visible(
            difference=0.026,
            n_malignant_groups=count,
            se_groups=0.005,
            se_seeds=0.005,
            se_gans=None,
            source="assumed",
        ),
    )


def test_one_minute_and_many():
    one = describe(plan(1.2, 1), 0.01, "melanoma").splitlines()
    assert one[1:4] == [
        "  trainings    12, about 1 minute",
        "  generators   1, 1 minute; 1 synthetic image, evaluated in 1 minute",
        "  together     about 4 minutes one after another (cpu)",
    ]
    assert one[-1].strip() == "(1 melanoma group tested; assumed)"
    many = describe(plan(60, 1200), 0.01, "melanoma")
    assert "1200, 60 minutes; 1,200 synthetic images, evaluated in 60 minutes" in many
    assert "about 3.0 hours one after another" in many


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 folds"), (1, "1 fold"), (2, "2 folds"), (1200, "1,200 folds")]
)
def test_a_noun_follows_its_number(count, said):
    assert counted(count, "fold") == said
