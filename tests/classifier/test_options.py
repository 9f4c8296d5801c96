"""Options that do nothing beside the others are refused by name; recipes have none of those."""

import pytest

from classifier.model.backbones import block_count, default_frozen, splits
from classifier.options import RECIPES, TrainOptions, check_effects, check_values
from classifier.train import FIRST
from dermsynth import cli
from dermsynth.errors import UserError
from dermsynth.options import flat, replace


def check(**values):
    options = replace(TrainOptions(), **values)
    frozen, backbone = options.model.frozen, options.model.backbone
    if frozen is None:
        frozen = 0 if options.model.weights == "none" else default_frozen(backbone)
    check_effects(options, frozen, splits(backbone))


@pytest.mark.parametrize(
    ("idle", "useful"),
    [
        ({"batch_norm": "adapt", "frozen": 0}, {"frozen": 3}),
        ({"metadata": "age"}, {"head": "metadata"}),
        ({"upsample_to": 0.7}, {"upsample": True}),
        ({"dropout": 0.5, "head": "hidden"}, {"head": "max"}),
        ({"dropout": 0.5, "head": "metadata"}, {"head": "multi-level"}),
        ({"mixstyle": 0.5, "frozen": 0}, {"frozen": 3}),
        ({"mixstyle": 0.5, "backbone": "timm:resnet18"}, {"backbone": "vanilla-cnn"}),
        ({"views": 4, "frozen": 0}, {"frozen": 3}),
        ({"views": 4, "frozen": 0}, {"views": 0}),
        ({"views": 4, "cutmix": 0.5}, {"cutmix": 0.0}),
        ({"views": 4, "augment": "none"}, {"augment": "flips"}),
        ({"views": 4, "batch_norm": "adapt"}, {"batch_norm": "fixed"}),
        ({"cache_gib": 1.0, "weights": "none"}, {"weights": "none", "frozen": 3}),
        ({"gamma": 1.0}, {"loss": "focal"}),
        ({"alpha": 0.5}, {"loss": "focal"}),
        ({"warm_up": 2.0}, {"schedule": "cosine"}),
        ({"lr_start": 1e-5, "schedule": "plateau"}, {"schedule": "exponential"}),
        ({"lr_start": 1e-5, "schedule": "exponential", "warm_up": 0.0}, {"warm_up": 1.0}),
        ({"hold": 2}, {"schedule": "exponential"}),
        ({"decay": 0.5}, {"schedule": "exponential"}),
        ({"lr_min": 1e-6}, {"schedule": "exponential"}),
        ({"factor": 0.4}, {"schedule": "plateau"}),
        ({"plateau_patience": 2}, {"schedule": "plateau"}),
        ({"head_lr": 0.01}, {"head_epochs": 1}),
        ({"min_delta": 0.01}, {"patience": 3}),
        ({"min_delta": 0.01}, {"schedule": "plateau"}),
    ],
    ids=str,
)
def test_what_has_no_effect_is_refused_by_name(idle, useful):
    name = next(iter(idle))
    with pytest.raises(UserError, match=rf"^--{name.replace('_', '-')} .*has an effect with"):
        check(**idle)
    check(**(idle | useful))


def test_a_stopped_run_goes_on_with_the_same_command():
    check(overwrite=True, resume=True)


def test_a_timm_model_keeps_no_features():
    with pytest.raises(UserError, match="--views 4"):
        check(backbone="timm:test_resnet", frozen=1, views=4)


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_option_of_a_recipe_does_something(recipe):
    options = cli.parse(TrainOptions, ["--config", recipe.stem], "p", "", configs=RECIPES)
    check_values(options)
    backbone = options.model.backbone
    frozen = options.model.frozen
    check_effects(options, block_count(backbone) if frozen is None else frozen, splits(backbone))


def test_help_shows_what_people_use_first():
    assert set(FIRST) < set(flat(TrainOptions()))
