import pytest

from experiments.wording import power, summary


def compared(**changes):
    """A comparison as comparisons.json has it, what the wording needs of it."""
    row = {
        **{"arm": "synthetic", "reference": "real", "test_set": "test", "auc_reference": 0.8712},
        **{"delta_auc": 0.0030, "ci_low": -0.0081, "ci_high": 0.0142},
        **{"ci_low_hierarchical": -0.0134, "ci_high_hierarchical": 0.0196, "margin": 0.01},
        **{"mde": 0.0192, "verdict": "inconclusive", "n": 412, "n_malignant": 58},
        **{"n_groups": 310, "n_malignant_groups": 44, "note": None},
    }
    row |= changes
    return row | {"auc_arm": row["auc_reference"] + row["delta_auc"]}


OPEN = "AUC 0.871 -> 0.874, +0.003 [-0.008, +0.014]"
COUNTS = "412 test images of 310 lesion groups"
MDE = "differences of 0.019 or more"
HELPS = {"verdict": "helps", "delta_auc": 0.024, "ci_low": 0.012, "ci_high": 0.036}
HURTS = {"verdict": "hurts", "delta_auc": -0.031, "ci_low": -0.05, "ci_high": -0.012}
SMALL = {"verdict": "helps", "delta_auc": 0.015, "ci_low": 0.002, "ci_high": 0.028}
BELOW = {"delta_auc": -0.005, "ci_low": -0.016, "ci_high": 0.006}
ELSEWHERE = {"arm": "real_weighted", "test_set": "external/clinic", "mde": None}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            f"Synthetic lesions did not measurably help: {OPEN} on {COUNTS}; "
            f"this design could only have seen {MDE}.",
        ),
        (
            BELOW,
            "Synthetic lesions neither measurably helped nor hurt: AUC 0.871 -> 0.866, -0.005 "
            f"[-0.016, +0.006] on {COUNTS}; this design could only have seen {MDE}.",
        ),
        (
            {"ci_low": 0.0011},
            "Synthetic lesions did not measurably help: AUC 0.871 -> 0.874, +0.003 "
            f"[+0.001, +0.014] on {COUNTS}, an interval without zero that does not stand after "
            f"correction (Holm); this design could only have seen {MDE}.",
        ),
        (
            HELPS,
            f"Synthetic lesions helped: AUC 0.871 -> 0.895, +0.024 [+0.012, +0.036] on {COUNTS}; "
            f"this design could have seen {MDE}.",
        ),
        (
            SMALL,
            f"Synthetic lesions helped: AUC 0.871 -> 0.886, +0.015 [+0.002, +0.028] on {COUNTS}; "
            f"this design reliably sees only {MDE}, so the size may be overstated.",
        ),
        (
            HURTS,
            f"Synthetic lesions hurt: AUC 0.871 -> 0.840, -0.031 [-0.050, -0.012] on {COUNTS}; "
            f"this design could have seen {MDE}.",
        ),
        (
            {"verdict": "equivalent", "arm": "synthetic_0.3"},
            f"Synthetic lesions (synthetic_0.3) made no difference that matters: {OPEN} on "
            f"{COUNTS}; two one-sided tests place it within the margin of 0.010 that was fixed "
            "beforehand.",
        ),
        (
            HURTS | ELSEWHERE,
            "The arm real_weighted hurt: AUC 0.871 -> 0.840, -0.031 [-0.050, -0.012] on the "
            "external clinic set (412 images of 310 lesion groups); what this design could have "
            "seen is not known.",
        ),
    ],
)
def test_verdict_sentence(changes, expected):
    assert summary([compared(**changes)])[0] == expected


@pytest.mark.parametrize(
    ("verdict", "control", "expected"),
    [
        ("helps", "helps", "better than duplicates, so class counts alone do not explain the gain"),
        ("helps", "inconclusive", "so class counts alone may explain the gain"),
        ("helps", "equivalent", "as good as duplicates, which come for free"),
        ("helps", "hurts", "worse than duplicates, which would have been the better choice"),
        ("inconclusive", "inconclusive", "not measurably different from duplicates."),
        ("hurts", "helps", "better than duplicates."),
    ],
)
def test_control_sentence(verdict, control, expected):
    rows = [
        compared(verdict=verdict),
        compared(reference="real_oversampled", verdict=control, delta_auc=0.0011),
    ]
    sentence = summary(rows)[1]
    assert sentence.startswith("Against as many duplicated real lesions (real_oversampled): AUC ")
    assert "+0.001" in sentence
    assert expected in sentence


def test_summary_says_what_weakens_it():
    fragile = compared(verdict="helps", ci_low=0.001, ci_high=0.03, note="Only 7 groups.")
    leaky, _, no_control, doubt, note = summary([fragile], leaky=["synthetic"])
    assert leaky.startswith("Not valid: trials of synthetic ")
    assert no_control.startswith("There was no control")
    assert "[-0.013, +0.020] and holds zero" in doubt
    assert note == "Only 7 groups."
    solid = fragile | {"ci_low_hierarchical": 0.0003, "note": None}
    assert not any("holds zero" in sentence for sentence in summary([solid]))


def test_summary_tells_external_sets_of_the_primary_pair_only():
    outside = {"test_set": "external/isic2019"}
    rows = [
        *(compared(), compared(reference="real_oversampled"), compared(**outside, **HELPS)),
        compared(reference="real_oversampled", **outside),
    ]
    assert summary(rows)[2:] == [
        "On the external isic2019 set: AUC 0.871 -> 0.895, +0.024 [+0.012, +0.036] (helps)."
    ]


def test_summary_without_comparisons():
    assert summary([]) == ["No verdict: no two arms have finished trials to compare."]


def test_power_says_how_many_groups_the_margin_takes():
    words = " ".join(power(compared(mde=0.02, margin=0.01, n_malignant_groups=44)))
    assert "176 malignant groups, 132 more" in words  # twice as fine takes four times as many
    assert "fine enough" in " ".join(power(compared(mde=0.009)))
    assert power(compared(mde=None)) == [
        "On the test part the smallest visible difference is not known."
    ]
