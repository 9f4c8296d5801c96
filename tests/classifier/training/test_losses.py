import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss

from classifier.options import LossOptions
from classifier.targets import BINARY, Target
from classifier.training.losses import Loss, class_weights

SEVEN = Target(
    "diagnosis",
    ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"),
    (False, False, False, False, True, False, False),
)
BINARY_BATCH = torch.randn(20, 1, generator=torch.Generator().manual_seed(0)) * 3
BINARY_TARGETS = (torch.arange(20) % 3 == 0).float()[:, None]
SEVEN_BATCH = torch.randn(20, 7, generator=torch.Generator().manual_seed(1)) * 2
SEVEN_LABELS = torch.arange(20) % 7
SEVEN_TARGETS = torch.eye(7)[SEVEN_LABELS]


def loss_of(target, weights=(), **options):
    return Loss(target, LossOptions(**options), weights)


def test_cross_entropy_is_torchs():
    found = Loss(BINARY)(BINARY_BATCH, BINARY_TARGETS)
    torch.testing.assert_close(
        found, F.binary_cross_entropy_with_logits(BINARY_BATCH, BINARY_TARGETS)
    )
    found = Loss(SEVEN)(SEVEN_BATCH, SEVEN_TARGETS)
    torch.testing.assert_close(found, F.cross_entropy(SEVEN_BATCH, SEVEN_LABELS))


def test_label_smoothing_and_weights_are_torchs():
    found = loss_of(SEVEN, label_smoothing=0.1)(SEVEN_BATCH, SEVEN_TARGETS)
    expected = F.cross_entropy(SEVEN_BATCH, SEVEN_LABELS, label_smoothing=0.1)
    torch.testing.assert_close(found, expected)
    weights = (1.0, 2.0, 0.5, 1.0, 3.0, 0.2, 1.0)
    found = loss_of(SEVEN, weights=weights)(SEVEN_BATCH, SEVEN_TARGETS)
    each = F.cross_entropy(SEVEN_BATCH, SEVEN_LABELS, torch.tensor(weights), reduction="none")
    torch.testing.assert_close(found, each.mean())
    found = loss_of(BINARY, weights=(1.0, 5.0))(BINARY_BATCH, BINARY_TARGETS)
    expected = F.binary_cross_entropy_with_logits(
        BINARY_BATCH, BINARY_TARGETS, pos_weight=torch.tensor(5.0)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.8), (0.0, 0.5), (1.5, 0.25)])
def test_focal_is_torchvisions(gamma, alpha):
    found = loss_of(BINARY, loss="focal", gamma=gamma, alpha=alpha)(BINARY_BATCH, BINARY_TARGETS)
    expected = sigmoid_focal_loss(BINARY_BATCH, BINARY_TARGETS, alpha, gamma, "mean")
    torch.testing.assert_close(found, expected)


def test_focal_of_two_classes_is_the_same_with_one_logit_and_with_two():
    two = Target("diagnosis", ("mel", "nv"), (True, False))
    logits = torch.cat([BINARY_BATCH, torch.zeros_like(BINARY_BATCH)], 1)
    targets = torch.cat([BINARY_TARGETS, 1 - BINARY_TARGETS], 1)
    for changes in ({"loss": "focal"}, {"miss_cost": 4.0}, {"label_smoothing": 0.1}):
        one = loss_of(BINARY, **changes)(BINARY_BATCH, BINARY_TARGETS)
        torch.testing.assert_close(one, loss_of(two, **changes)(logits, targets))


def test_a_melanoma_taken_for_a_nevus_costs_more_and_nothing_else_does():
    plain, dear = Loss(SEVEN), loss_of(SEVEN, miss_cost=3.0)
    for true in range(7):
        targets = torch.eye(7)[[true]]
        for guess in range(7):
            logits = 8.0 * torch.eye(7)[[guess]]
            more = (dear(logits, targets) - plain(logits, targets)).item()
            if (SEVEN.classes[true], SEVEN.classes[guess]) == ("mel", "nv"):
                assert more == pytest.approx(2 * plain(logits, targets).item(), rel=0.3)
            else:
                assert more < 0.01


def test_miss_cost_of_two_classes_is_the_weight_of_melanomas():
    found = loss_of(BINARY, miss_cost=4.0)(BINARY_BATCH, BINARY_TARGETS)
    torch.testing.assert_close(
        found, loss_of(BINARY, weights=(1.0, 4.0))(BINARY_BATCH, BINARY_TARGETS)
    )


def test_soft_targets_are_mixtures():
    a, b = SEVEN_TARGETS, SEVEN_TARGETS.roll(1, 0)
    loss = loss_of(SEVEN, weights=tuple(range(1, 8)))
    mixed = loss(SEVEN_BATCH, 0.3 * a + 0.7 * b)
    assert torch.isfinite(mixed)
    plain = Loss(SEVEN)
    expected = 0.3 * plain(SEVEN_BATCH, a) + 0.7 * plain(SEVEN_BATCH, b)
    torch.testing.assert_close(plain(SEVEN_BATCH, 0.3 * a + 0.7 * b), expected)


@pytest.mark.parametrize("size", [60.0, 1000.0])
def test_no_logit_is_too_large(size):
    for name in ("cross-entropy", "focal"):
        logits = torch.tensor([[size], [-size]], requires_grad=True)
        loss = loss_of(BINARY, loss=name, miss_cost=2.0)(logits, torch.tensor([[0.0], [1.0]]))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60))
@settings(max_examples=50)
def test_balanced_weights_even_the_classes(labels):
    labels = np.array(labels)
    weights = np.array(class_weights(labels, SEVEN, LossOptions(class_weights="balanced")))
    total = np.bincount(labels, weights[labels], 7)
    present = total[np.unique(labels)]
    np.testing.assert_allclose(present, len(labels) / 7)


def test_positive_weight_is_of_malignant_classes():
    three = LossOptions(positive_weight=3.0)
    assert class_weights(np.array([0, 1, 1]), BINARY, LossOptions()) == ()
    assert class_weights(np.array([0, 1, 1]), BINARY, three) == (1.0, 3.0)
    both = LossOptions(class_weights="balanced", positive_weight=2.0)
    assert class_weights(np.array([0, 0, 0, 1]), BINARY, both) == pytest.approx((2 / 3, 4.0))
