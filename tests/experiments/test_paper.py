"""What a paper takes from an experiment: only what its records know."""

import re

import pytest
from comparison_rows import comparison

from data.store import TargetMeaning
from experiments.checklist import ITEMS, checklist
from experiments.paper import latex, limitations, methods
from experiments.records import DatasetFacts, ExperimentRecord, MistakeRecord, PartRecord

MELANOMA = TargetMeaning(one="melanoma", zero="not melanoma", told_by="the diagnosis")
PLAN = {"made": "2026-03-02T14:00:00+00:00", "design_sha256": "ab" * 32}


def part(images, malignant, **missing):
    """A part whose images all have ids."""
    counts = {"groups": images // 2, "lesions": images, "patients": images // 2}
    return PartRecord(
        images=images,
        malignant=malignant,
        **counts,
        without_lesion=0,
        without_patient=0,
        missing=missing,
    )


def record(**changes):
    """An experiment as the runner records it."""
    info = {"source": "ham10000", "licence": "CC BY-NC 4.0", "counts": {"images": 10}}
    content = {
        "name": "ham_quick",
        "config": {"seeds": [0, 1], "bootstrap": 4000, "classifier": {"frozen": 0}},
        "dataset": DatasetFacts(path="d", info=info),
        "versions": {"dermsynth": "0.5.0"},
        "machine": {"cpu": "Xeon", "flags": ["avx2", "avx512f"], "cores": 2},
        "parts": {"train": part(6410, 712, age=0), "test": part(412, 58, age=7, sex=0)},
        "plan": PLAN,
    }
    return ExperimentRecord(**content | changes)


def test_methods_are_written_from_the_records():
    arms = {"real": "real images only", "synthetic": "(synthetic: 0.3)"}
    rows = [comparison(), comparison(family="secondary"), comparison(family="external-primary")]
    text = " ".join(methods(record(), rows, arms, MELANOMA))
    for said in (
        "the source ham10000; the target was melanoma (1) against not melanoma (0), told by the",
        "Training: 6,410 images (712 melanoma) in 3,205 groups, 3,205 patient ids and 6,410 lesion",
        "real: real images only; synthetic: (synthetic: 0.3)",
        "trained with frozen: 0; options that are not named had the defaults",
        "The classifier seeds were 0, 1.",
        "synthetic against real in AUC, averaged over single trainings (15 pairs), on 412 images",
        "bootstrap over groups (4000 replicates)",
        "The margin of equivalence was 0.01 AUC",
        "Holm's correction went over 1 secondary comparison.",
        "on external sets were a family of their own",
        f"before training on {PLAN['made']} (SHA-256 {PLAN['design_sha256']})",
        "sees differences of 0.019 AUC",
        "Software: dermsynth 0.5.0, on Xeon (avx2, avx512f).",
    ):
        assert said in text
    assert "generator seeds" not in text
    assert "took no part in training" in text
    leaky = " ".join(methods(record(), rows, arms, MELANOMA, ["synthetic"]))
    assert "took no part" not in leaky
    assert "the generator of synthetic may have seen validation or test images" in leaky


def test_methods_of_an_old_record_leave_out_what_it_does_not_know():
    text = " ".join(methods(ExperimentRecord(name="old"), [], {}, TargetMeaning()))
    assert "SHA-256" not in text
    assert "None" not in text
    assert "Software" not in text


def test_limitations_are_those_of_the_records():
    grouping = {"images": 10, "with_patient": 0, "with_lesion": 10, "with_neither": 0}
    info = {"source": "phantom", "grouping": grouping}
    one = record(
        config={"smoke": True},
        dataset=DatasetFacts(path="d", info=info),
        data_warnings=["all 10 images have neither id"],
        warnings=["collapsed: variety 0.1"],
    )
    rows = [comparison(scope="pool", n_gan_seeds=1, note="Only 7 patients.")]
    said = limitations(one, rows, ["synthetic"], 2, 12)
    for sentence in (
        "Arms were leaky (synthetic): the result is not valid.",
        "This was a smoke run: nothing was learnt, and no figure means anything.",
        "Images were drawn, not photographed: nothing follows for skin.",
        "All 10 images have neither id.",
        "Synthetic images: collapsed: variety 0.1.",
        "The primary comparison shows neither an effect nor its absence.",
        "Only 7 patients.",
        "2 of 12 trainings did not finish and are left out.",
        "Not known: age of 7 test images.",
    ):
        assert sentence in said
    assert any("a lesion id but no patient id" in one for one in said)
    assert any("(one generator a fold was trained)" in one for one in said)
    solid = [
        comparison(verdict="helps", n_folds=5),
        comparison(test_set="external/x", family="external-primary"),
    ]
    text = " ".join(limitations(record(parts={}), solid, [], 0, 12))
    assert text.startswith("The labels are those of the source")


def numbers(items: str) -> list[str]:
    """`["3a", "3b", "3c", "4"]` of "3a-3c, 4"."""
    found = []
    for item in filter(None, items.split(", ")):
        first, _, last = item.partition("-")
        span = range(ord(first[-1]), ord(last[-1]) + 1) if last else []
        found += [first[:-1] + chr(letter) for letter in span] or [item]
    return found


def test_the_latex_table_is_whole_and_escaped():
    rows = [
        comparison(),
        comparison(arm="real_over&", reference="50%", ci_low=None, ci_high=None, p_holm=None),
        comparison(p_holm=0.0002, delta_auc=-0.0123, verdict="hurts"),
    ]
    text = latex(rows, "ham_quick")
    assert r"in ham\_quick;" in text
    assert (
        r"synthetic & real & test & 0.874 & 0.871 & $+0.003$ ($-0.008$, $+0.014$) & 0.600 & "
        r"inconclusive \\" in text
    )
    assert r"real\_over\& & 50\% & test" in text
    assert r"$+0.003$ (--) & -- & inconclusive \\" in text
    assert r"$-0.012$" in text
    assert r"$<0.001$ & hurts \\" in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    columns = re.search(r"\\begin{tabular}{@{}(\w+)@{}}", text)[1]
    assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in body} == {len(columns)}
    head = text[text.index(r"\toprule") : text.index(r"\midrule")]
    assert head.count("&") + 1 == len(columns)
    assert text.count(r"\toprule") == text.count(r"\midrule") == text.count(r"\bottomrule") == 1


def test_signs_that_pdflatex_does_not_know_are_written_as_its_own():
    text = latex([comparison(arm="−5% ± x_y", reference="≥ 3 → #{1}~^\\$")], "a & b ≤ c")
    assert text.isascii()
    assert r"$-$5\% $\pm$ x\_y & $\geq$ 3 $\rightarrow$ \#\{1\}\textasciitilde{}" in text
    assert r"\textasciicircum{}\textbackslash{}\$ & test" in text
    assert r"in a \& b $\leq$ c;" in text


def test_the_checklist_has_every_number_and_honest_blanks():
    claim = [item[0] for item in ITEMS if item[0]]
    assert claim == [str(number) for number in range(1, 45)]
    letters = {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}  # the others: none
    tripod = {
        f"{number}{letter}"
        for number in range(1, 28)
        for letter in ("abcdefg"[: letters[number]] if number in letters else [""])
    }
    assert {one for item in ITEMS for one in numbers(item[1])} == tripod
    assert len(tripod) == 52
    found = {item.claim: item for item in checklist(record(), [comparison()], MELANOMA, 0)}
    assert found["7"].answer == "ham10000"
    assert found["20"].answer == "groups of a patient, a lesion or near-duplicates"
    assert found["12"].answer.startswith("7 values of diagnosis, age, sex and site are missing")
    assert found["21"].answer == "smallest visible difference: 0.019 AUC with 80% power"
    assert found["33"].answer == "none"
    assert found["42"].answer.startswith(f"plan of {PLAN['made']}, SHA-256 abababababababab...")
    for number in ("1", "2", "5", "11", "13", "16", "18", "30", "34", "39", "44"):
        assert (found[number].answer, found[number].where) == ("", "")


def test_the_checklist_says_what_was_done():
    mistake = {"file": "f", "image_id": "i", "diagnosis": None, "target": 1, "wrong": 2}
    mistake |= {"n_models": 2, "wrong_reference": 0, "n_models_reference": 1}
    grouping = {"images": 9, "with_patient": 0, "with_lesion": 0, "with_neither": 9}
    info = {"grouping": grouping}
    one = record(mistakes=[MistakeRecord(**mistake)], dataset=DatasetFacts(path="d", info=info))
    rows = [comparison(), comparison(test_set="external/clinic", family="external-primary")]
    found = {item.claim: item for item in checklist(one, rows, MELANOMA, 23)}
    assert found["30"].answer == "the difference in 23 subgroups"
    assert found["33"].answer == "clinic"
    assert found["39"].answer == "1 lesion that most models call wrongly"
    assert "but all 9 images have neither a patient nor a lesion id" in found["20"].answer
    assert found["7"].answer == ""


@pytest.mark.parametrize("key", ["mde", "plan"])
def test_the_checklist_leaves_open_what_is_not_known(key):
    rows = [comparison(mde=None)] if key == "mde" else [comparison()]
    found = {c.claim: c for c in checklist(record(plan=None), rows, MELANOMA, 0)}
    assert found["42"].answer == ""
    if key == "mde":
        assert found["21"].answer == "smallest visible difference: not known"
