import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.options import parse_share
from classifier.training.training_set import extra_count
from dermsynth.errors import UserError

counts = st.integers(1, 100_000)


def extras(benign, malignant, share):
    return extra_count(np.repeat([0, 1], [benign, malignant]), share)


@given(counts, counts, st.floats(0, 0.95))
def test_the_share_of_the_final_set(benign, malignant, share):
    extra = extras(benign, malignant, share)
    total = benign + malignant + extra
    assert extra >= 0
    assert abs(extra / total - share) <= 1 / total


@given(counts, counts)
def test_balanced_evens_the_classes_and_drops_nothing(benign, malignant):
    extra = extras(benign, malignant, "balanced")
    assert malignant + extra == max(benign, malignant)


@given(counts, counts, st.floats(0, 0.9), st.floats(0, 0.9))
def test_more_share_is_never_fewer_images(benign, malignant, one, other):
    low, high = sorted((one, other))
    assert extras(benign, malignant, low) <= extras(benign, malignant, high)


def test_known_answers():
    assert extras(700, 0, 0.3) == 300
    assert extras(800, 200, 0) == 0
    assert extras(800, 200, 0.5) == 1000
    assert extras(800, 200, "balanced") == 600


@given(st.floats(0, 1, exclude_max=True))
def test_shares_are_read(share):
    assert parse_share("--synthetic", repr(share)) == share


@pytest.mark.parametrize("text", ["1", "1.0", "-0.1", "nan", "inf", "", "half", "30%", "0,3"])
def test_bad_shares_name_option_and_value(text):
    with pytest.raises(UserError, match=r"--synthetic .*0 <= share < 1"):
        parse_share("--synthetic", text)


def test_balanced_is_a_word():
    assert parse_share("--synthetic", "balanced") == "balanced"
