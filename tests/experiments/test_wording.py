import pytest
from comparison_rows import comparison

from experiments.wording import DRAWN, contradictions, power, short_verdict, summary


def compared(**changes):
    """A comparison as comparisons.json has it, with an AUC that fits."""
    row = comparison(**changes)
    return row | {"auc_arm": row["auc_reference"] + row["delta_auc"]}


OPEN = "AUC 0.871 -> 0.874, +0.003 [-0.008, +0.014]"
COUNTS = "412 test images of 310 lesion groups"
MDE = "differences of 0.019 or more"
METHOD = "this is about the method: 3 generators and 5 classifier seeds were tried"
HELPS = {"verdict": "helps", "delta_auc": 0.024, "ci_low": 0.012, "ci_high": 0.036}
HURTS = {"verdict": "hurts", "delta_auc": -0.031, "ci_low": -0.05, "ci_high": -0.012}
SMALL = {"verdict": "helps", "delta_auc": 0.015, "ci_low": 0.002, "ci_high": 0.028}
BELOW = {"delta_auc": -0.005, "ci_low": -0.016, "ci_high": 0.006}
POOL = {"scope": "pool", "n_gan_seeds": 1}
ELSEWHERE = {"arm": "real_weighted", "test_set": "external/clinic", "scope": "arms"}
ELSEWHERE |= {"mde": None, "mde_helps": None}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            "Inconclusive: synthetic lesions neither measurably helped nor hurt: "
            f"{OPEN} on {COUNTS}; {METHOD}.",
        ),
        (
            BELOW,
            "Inconclusive: synthetic lesions neither measurably helped nor hurt: AUC 0.871 -> "
            f"0.866, -0.005 [-0.016, +0.006] on {COUNTS}; {METHOD}.",
        ),
        (
            {"ci_low": 0.0011},
            "Inconclusive: synthetic lesions neither measurably helped nor hurt: AUC 0.871 -> "
            f"0.874, +0.003 [+0.001, +0.014] on {COUNTS}, an interval without zero that does not "
            f"stand after correction (Holm); {METHOD}.",
        ),
        (
            HELPS,
            f"Helps: synthetic lesions helped: AUC 0.871 -> 0.895, +0.024 [+0.012, +0.036] on "
            f"{COUNTS}; this design could have seen {MDE}; {METHOD}.",
        ),
        (
            HELPS | POOL,
            "Helps: these synthetic lesions helped: AUC 0.871 -> 0.895, +0.024 [+0.012, +0.036] on "
            f"{COUNTS}; this design could have seen {MDE}; this is about this one pool of images "
            "and 5 classifier seeds: another generator was not tried.",
        ),
        (
            HELPS | POOL | {"n_gan_seeds": 2},
            "Helps: these synthetic lesions helped: AUC 0.871 -> 0.895, +0.024 [+0.012, +0.036] on "
            f"{COUNTS}; this design could have seen {MDE}; this is about these 2 pools of images "
            "and 5 classifier seeds: from 2 a fold it is not known how generators vary, so another "
            "one may do otherwise.",
        ),
        (
            SMALL,
            f"Helps: synthetic lesions helped: AUC 0.871 -> 0.886, +0.015 [+0.002, +0.028] on "
            f"{COUNTS}; this design reliably sees only {MDE}, so the size may be overstated; "
            f"{METHOD}.",
        ),
        (
            HURTS,
            f"Hurts: synthetic lesions hurt: AUC 0.871 -> 0.840, -0.031 [-0.050, -0.012] on "
            f"{COUNTS}; this design could have seen {MDE}; {METHOD}.",
        ),
        (
            {"verdict": "equivalent", "arm": "synthetic_0.3"},
            "Equivalent: synthetic lesions (synthetic_0.3) made no difference that matters: "
            f"{OPEN} on {COUNTS}; two one-sided tests place it within the margin of 0.010 that was "
            f"fixed beforehand; {METHOD}.",
        ),
        (
            HURTS | ELSEWHERE,
            "Hurts: the arm real_weighted hurt: AUC 0.871 -> 0.840, -0.031 [-0.050, -0.012] on the "
            "external clinic set (412 images of 310 lesion groups); not even the largest possible "
            "gain would be seen reliably; 5 classifier seeds were tried.",
        ),
        (
            {
                **{"verdict": "undecidable", "why_undecidable": "one classifier seed: so"},
                **{"ci_low": None, "ci_high": None},
            },
            "Undecidable: no verdict was possible for synthetic lesions against real on "
            f"{COUNTS}: one classifier seed: so; what was measured: AUC 0.871 -> 0.874, +0.003 "
            "[-0.006, +0.012] for these trained models.",
        ),
    ],
)
def test_headline(changes, expected):
    assert summary([compared(**changes)])[0] == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"made_by": "3 generators trained here, lean"},
            "Helps: synthetic lesions (3 generators trained here, lean) helped: AUC ",
        ),
        (
            {"made_by": "the pool x from elsewhere, of unknown origin", "arm": "mine"},
            "Helps: synthetic lesions (mine, the pool x from elsewhere, of unknown origin) helped",
        ),
        (
            {"made_by": "one generator trained here", "gate_failed": ["collapsed", "copies"]},
            "Helps: synthetic lesions (one generator trained here), which failed the quality gate "
            "(collapsed, copies), helped: AUC ",
        ),
        (
            {
                "reference": "lean",
                "reference_made_by": "3 generators trained here, lean",
                "reference_gate_failed": ["blurred"],
            },
            "Helps: synthetic lesions helped against lean (3 generators trained here, lean), which "
            "failed the quality gate (blurred): AUC ",
        ),
    ],
)
def test_the_headline_names_what_made_the_images_and_what_failed_the_gate(changes, expected):
    assert summary([compared(**HELPS | changes)])[0].startswith(expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "a gain of 0.018 AUC or a loss of 0.019 AUC is found in four of five such "),
        (
            {"mde_helps": None},
            "a loss of 0.019 AUC is found in four of five such experiments, a smaller one less "
            "often; not even the largest possible gain would be.",
        ),
    ],
)
def test_what_inconclusive_means_comes_next(changes, expected):
    said = summary([compared(**changes)])[1]
    assert said.startswith("Inconclusive means that neither an effect nor its absence was shown: ")
    assert expected in said
    assert not any("means that" in one for one in summary([compared(**HELPS)]))


def test_warnings_stand_in_the_verdicts_own_sentence():
    first = summary([compared(**HELPS)], warnings=["the generator copies", "it is barely trained"])
    assert first[0].startswith("Helps: synthetic lesions helped: ")
    assert first[0].endswith(f"{METHOD}; beware: the generator copies; it is barely trained.")


def test_warnings_of_the_data_come_next():
    data = ["9,605 of 10,015 images have neither a patient nor a lesion id"]
    said = summary([compared(**HELPS)], data_warnings=data)
    assert said[1] == "Warning: 9,605 of 10,015 images have neither a patient nor a lesion id."
    assert [said[0], *said[2:]] == summary([compared(**HELPS)])


@pytest.mark.parametrize(
    ("verdict", "control", "expected"),
    [
        ("helps", "helps", "better than duplicates, so class counts alone do not explain the gain"),
        ("helps", "inconclusive", "so class counts alone may explain the gain"),
        ("helps", "undecidable", "could not be judged, so class counts alone may explain the gain"),
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
    (sentence,) = (one for one in summary(rows) if one.startswith("Against"))
    assert sentence.startswith("Against as many duplicated real lesions (real_oversampled): AUC ")
    assert "+0.001" in sentence
    assert expected in sentence


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "inconclusive"),
        ({"ci_low": 0.0011}, "inconclusive after Holm"),
        ({"ci_low": 0.0011, "p_holm": 0.5923}, "inconclusive by its test"),
        (HELPS, "helps"),
    ],
)
def test_an_interval_without_zero_and_no_verdict_says_why(changes, word):
    assert short_verdict(comparison(**changes)) == word


def test_the_control_obeys_the_corrected_p():
    control = {"delta_auc": 0.022, "ci_low": 0.001, "ci_high": 0.044, "p": 0.041, "p_holm": 0.082}
    rows = [compared(**HELPS), compared(reference="real_oversampled", **control)]
    sentence = summary(rows)[1]
    assert (
        "+0.022 [+0.001, +0.044], better than duplicates by an interval without zero, which "
        in (sentence)
    )
    assert "does not stand after correction (Holm: p 0.041, corrected 0.082), so class" in sentence
    assert "not measurably different" not in sentence
    worse = control | {"delta_auc": -0.022, "ci_low": -0.044, "ci_high": -0.001}
    rows = [compared(**HELPS), compared(reference="real_oversampled", **worse)]
    assert "worse than duplicates by an interval" in summary(rows)[1]


@pytest.mark.parametrize(
    ("primary", "perfect", "expected"),
    [
        ({}, HELPS, "(helps): there is a gain to be had, and these images were not seen to"),
        (HELPS, HELPS, "[+0.012, +0.036] (helps)."),
        ({}, {}, "(inconclusive): not even these were seen to help, so no generator"),
        (HURTS, {"verdict": "equivalent"}, "(equivalent)."),
    ],
)
def test_perfect_images_stand_beside_the_generators(primary, perfect, expected):
    oracle = compared(arm="oracle", made_by=DRAWN["oracle"], **perfect)
    sentence = summary([compared(**primary), oracle])[-1]
    assert sentence.startswith("Perfect lesions in their place (oracle, drawn by the phantom's")
    assert expected in sentence
    elsewhere = oracle | {"test_set": "external/clinic"}
    for other in (compared(arm="oracle"), oracle | {"reference": "real_oversampled"}, elsewhere):
        assert not any("Perfect" in one for one in summary([compared(**primary), other]))
    assert not any("Perfect" in one for one in summary([oracle, compared()]))


def test_summary_says_what_weakens_it():
    fragile = compared(ci_low_models=0.001, ci_high_models=0.006, note="Only 7 groups.")
    leaky, _, _, no_control, alone, note = summary([fragile], leaky=["synthetic"])
    assert leaky.startswith("Not valid: trials of synthetic ")
    assert no_control.startswith("There was no control")
    assert alone.startswith("For these trained models alone the interval is [+0.001, +0.006]")
    assert note == "Only 7 groups."
    solid = fragile | HELPS
    assert not any("trained models alone" in sentence for sentence in summary([solid]))


@pytest.mark.parametrize(
    ("scope", "said"),
    [("method", "new seeds, new generators:"), ("pool", "new test patients, new seeds:")],
)
def test_rotated_folds_say_what_the_word_holds_for(scope, said):
    sentence = summary([compared(n_folds=5, scope=scope)])[3]
    assert sentence.startswith("Every image was tested once, by models of 5 folds.")
    assert "training sets like these, new test patients" in sentence
    assert said in sentence
    assert "5 classifier seeds a fold" in summary([compared(n_folds=5, scope=scope)])[0]


def test_summary_tells_external_sets_of_the_primary_pair_only():
    outside = {"test_set": "external/isic2019"}
    rows = [
        *(compared(**HELPS), compared(reference="real_oversampled"), compared(**outside, **HELPS)),
        compared(reference="real_oversampled", **outside, **HURTS),
    ]
    assert summary(rows)[2:] == [
        "On the external isic2019 set: AUC 0.871 -> 0.895, +0.024 [+0.012, +0.036] (helps)."
    ]
    assert contradictions(rows) == []


@pytest.mark.parametrize("word", ["equivalent", "inconclusive"])
def test_a_difference_that_an_external_set_alone_shows_stands_by_the_verdict(word):
    outside = {"test_set": "external/isic2019"}
    rows = [compared(verdict=word), compared(**outside, **HURTS)]
    said = "But it hurts on the external isic2019 set: AUC 0.871 -> 0.840, -0.031 [-0.050, -0.012]."
    assert contradictions(rows) == [said]
    sentences = summary(rows, data_warnings=["ids are missing"])
    assert sentences.index(said) < sentences.index("Warning: ids are missing.")
    assert sum("isic2019" in sentence for sentence in sentences) == 1


@pytest.mark.parametrize("word", ["equivalent", "inconclusive", "undecidable"])
def test_no_difference_elsewhere_contradicts_nothing(word):
    assert contradictions([compared(**HELPS), compared(test_set="external/a", verdict=word)]) == []
    assert contradictions([]) == []


def test_summary_without_comparisons():
    assert summary([]) == ["No verdict: no two arms have finished trials to compare."]


def test_power_says_how_many_groups_the_margin_takes():
    images = {"se_groups": 0.005, "se_seeds": 0.0, "se_gans": None, "n_malignant_groups": 44}
    words = " ".join(power(compared(**images, mde=0.02, margin=0.01)))
    assert "176 malignant groups, 132 more" in words  # twice as fine takes four times as many
    assert "a gain of 0.018 AUC or a loss of 0.019" in words
    assert "two-sided 5%" in words
    assert "fine enough" in " ".join(power(compared(mde=0.009)))
    assert "groups are melanoma." in " ".join(power(compared(mde=0.009), "melanoma"))
    assert power(compared(mde=None)) == [
        "On the test part the smallest visible difference is not known."
    ]


def test_power_says_when_more_images_do_not_help():
    trained = {"se_groups": 0.002, "se_seeds": 0.005, "se_gans": 0.004, "mde": 0.03}
    assert "more seeds or generators" in " ".join(power(compared(**trained)))
