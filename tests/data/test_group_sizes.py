"""A group that would be a part by itself: a placeholder that was taken for somebody's id."""

import numpy as np
import pandas as pd
import pytest

from data.preparation.assemble import split
from data.preparation.checks import check_enough
from data.preparation.options import SplitOptions
from dermsynth.errors import UserError

NO_PAIRS = pd.DataFrame({"one": [], "other": [], "kind": []})


def rows(patients, lesions=None, malignant_every=5) -> pd.DataFrame:
    n = len(patients)
    return pd.DataFrame(
        {
            "image_id": [f"i{k:04d}" for k in range(n)],
            "target": (np.arange(n) % malignant_every == 0).astype(float),
            "patient_id": np.array(patients, dtype=object),
            "lesion_id": np.array(lesions if lesions is not None else [None] * n, dtype=object),
            "external": False,
        }
    )


def people(sizes: list[int]) -> list[str]:
    return [f"p{k}" for k, size in enumerate(sizes) for _ in range(size)]


@pytest.mark.parametrize("placeholder", ["ANON", "999", "xxx"])
def test_a_placeholder_stops_with_its_number_its_column_and_what_to_do(placeholder):
    table = rows([placeholder] * 300 + people([1] * 500))
    with pytest.raises(UserError) as caught:
        check_enough(table, SplitOptions())
    words = str(caught.value)
    assert "one group holds 300 of 800 images, and a part is to hold 160 at most" in words
    assert f"patient_id is {placeholder} in 300 of its 300 images" in words
    assert "empty these cells" in words
    assert "--folds 2 --test-fraction 0 has room for it" in words
    assert "\n" not in words


def test_the_split_that_it_names_is_taken():
    table = rows(["busy"] * 300 + people([1] * 500))
    check_enough(table, SplitOptions(folds=2, test_fraction=0.0))


def test_where_everything_has_the_placeholder_it_is_no_lack_of_lesions():
    with pytest.raises(UserError, match="patient_id is none in 100 of its 100 images"):
        check_enough(rows(["none"] * 100), SplitOptions())


def test_a_group_of_most_melanomas_stops_though_it_is_few_images():
    table = rows(people([1] * 1000), malignant_every=10)  # 100 malignant
    ill = table.index[table["target"] == 1]
    table.loc[ill[:60], "patient_id"] = "ANON"  # 60 of 1,000 images are no large group
    with pytest.raises(UserError, match=r"60 of 100 melanoma images, .* to hold 20 at most"):
        check_enough(table, SplitOptions(), ("not melanoma", "melanoma"))


def test_lesion_numbers_that_begin_anew_in_every_patient_are_named():
    patients = people([3] * 100)
    table = rows(patients, [str(k % 3 + 1) for k in range(300)])
    with pytest.raises(UserError, match="lesion_id 1 is given to images of 100 patients"):
        check_enough(table, SplitOptions())


@pytest.mark.parametrize(
    "sizes",
    [
        [5, 8, 10, 12, 15, 20, 25, 30],  # eight patients, the largest a quarter of all images
        [2, 2, 3, 3, 4, 4, 19],  # one of half the images: too few of them to tell
        [30, 30, 30, 30, 150],  # five patients
        [1] * 3000 + [115],  # the largest of SIIM-ISIC 2020
        [1] * 1000 + [200],  # as large as the test part
    ],
)
def test_uneven_patients_do_not_stop(sizes):
    check_enough(rows(people(sizes), malignant_every=2), SplitOptions(folds=2))


def test_near_duplicates_that_are_a_part_by_themselves_stop_after_decoding():
    table = rows(people([1] * 200))
    chain = pd.DataFrame({"one": range(80), "other": range(1, 81), "kind": "near"})
    check_enough(table, SplitOptions())  # before decoding nothing is known of them
    with pytest.raises(UserError, match="81 images are near-duplicates, i0000 and i0001 for two"):
        split(table, chain, np.arange(200), SplitOptions())


def test_given_folds_are_not_judged():
    table = rows(["ANON"] * 300 + people([1] * 500)).assign(given_fold=0.0)
    table.loc[300:, "given_fold"] = np.arange(500) % 2 + 1.0
    check_enough(table, SplitOptions(fold_column="fold"))
    done = split(table, NO_PAIRS, np.arange(800), SplitOptions(fold_column="fold"))
    assert done["fold"].tolist() == table["given_fold"].tolist()


def test_unlabelled_and_external_images_do_not_count():
    table = rows(people([1] * 500) + ["ANON"] * 300)
    table.loc[500:, "target"] = np.nan
    check_enough(table, SplitOptions())
    labelled = table.assign(target=(np.arange(800) % 5 == 0).astype(float), external=False)
    labelled.loc[500:, "external"] = True
    split(labelled, NO_PAIRS, np.arange(800), SplitOptions())
