"""The phantom's truth is the truth: labels, best AUC, nuisances, metadata, oracle and broken."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, ks_2samp, mannwhitneyu
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data.phantom import render
from data.phantom.render import Scene, draw, draw_all
from data.phantom.sampling import (
    FACTORS,
    PhantomConfig,
    logit,
    sample_dataset,
    sample_malignant,
    sample_malignant_table,
    sample_table,
)
from dermsynth.errors import UserError
from dermsynth.options import flag

SCORES = [f"factor_{name}" for name in FACTORS]
LARGE = PhantomConfig(patients=12_000)
SMALL = PhantomConfig(patients=12, size=64)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """About 35,000 images' factors, one row a lesion where a test needs independence."""
    return sample_table(LARGE, seed=7)


@pytest.fixture(scope="module")
def lesions(table: pd.DataFrame) -> pd.DataFrame:
    """One image a lesion, one lesion a patient: independent rows for the tests of distribution."""
    return table.drop_duplicates("patient_id")


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, pd.DataFrame, dict[str, float]]:
    return sample_dataset(PhantomConfig(patients=330, size=64), 3, progress=False, workers=1)


def look(**changes: object) -> Scene:
    plain = Scene(
        asymmetry=0.2,
        border=0.2,
        colour=0.2,
        diameter=0.45,
        pattern="homogeneous",
        density=1.0,
        warmth=0.0,
        softness=0.4,
        skin=(215.0, 165.0, 170.0),
        hairs=0,
        ruler=False,
        bubbles=0,
        vignette=0.2,
        lesion_seed=1,
        image_seed=2,
    )
    return replace(plain, **changes)


# -------------------------------------------------------------------------------------- the truth


@pytest.mark.parametrize("best_auc", [0.6, 0.75, 0.9, 0.97])
@pytest.mark.parametrize("prevalence", [0.01, 0.05, 0.15, 0.5])
def test_the_true_probability_has_the_auc_and_the_prevalence_asked_for(
    best_auc: float, prevalence: float
) -> None:
    intercept, slope = logit(prevalence, best_auc)
    rng = np.random.default_rng(0)
    probability = 1 / (1 + np.exp(-(intercept + slope * rng.standard_normal(400_000))))
    target = rng.random(400_000) < probability
    error = 0.3 / np.sqrt(target.sum())  # of an AUC, about
    assert roc_auc_score(target, probability) == pytest.approx(best_auc, abs=4 * error)
    assert target.mean() == pytest.approx(prevalence, abs=0.002)


@settings(max_examples=20)
@given(best_auc=st.floats(0.55, 0.97), prevalence=st.floats(0.05, 0.6), seed=st.integers(0, 2**32))
def test_a_sample_agrees_within_monte_carlo_error(
    best_auc: float, prevalence: float, seed: int
) -> None:
    config = PhantomConfig(patients=4000, prevalence=prevalence, best_auc=best_auc)
    table = sample_table(config, seed).drop_duplicates("lesion_id")
    # Generous bounds: some 400 to 5,000 malignant lesions, correlated within a patient.
    positives = min(table.target.sum(), (1 - table.target).sum())
    error = 0.5 / np.sqrt(positives)
    assert abs(roc_auc_score(table.target, table.factor_probability) - best_auc) < 5 * error
    assert abs(table.target.mean() - prevalence) < 5 * 1.3 * 0.5 / np.sqrt(len(table))


def test_the_probability_is_calibrated_and_no_function_of_the_scores_beats_it(
    table: pd.DataFrame,
) -> None:
    for _, part in table.groupby(pd.qcut(table.factor_probability, 10)):
        assert part.target.mean() == pytest.approx(part.factor_probability.mean(), abs=0.03)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    half = len(table) // 2
    model.fit(table[SCORES][:half], table.target[:half])
    reached = roc_auc_score(table.target[half:], model.predict_proba(table[SCORES][half:])[:, 1])
    bound = roc_auc_score(table.target[half:], table.factor_probability[half:])
    assert bound - 0.003 < reached < bound + 0.002


def test_counts_and_ids(table: pd.DataFrame) -> None:
    assert table.image_id.is_unique
    assert table.image_id[0] == "phantom_000000"
    assert table.patient_id.nunique() == LARGE.patients
    assert table.lesion_id.nunique() / LARGE.patients == pytest.approx(2.2, abs=0.05)
    assert len(table) / table.lesion_id.nunique() == pytest.approx(1.33, abs=0.02)
    assert table.groupby("lesion_id").patient_id.nunique().max() == 1
    assert (table.diagnosis.eq("melanoma") == table.target.eq(1)).all()


def test_images_of_a_lesion_share_its_factors_and_those_of_a_patient_the_skin(
    table: pd.DataFrame,
) -> None:
    lesion = [*SCORES, "target", "site", "factor_pattern", "factor_density"]
    assert table.groupby("lesion_id")[lesion].nunique().max().max() == 1
    patient = ["factor_skin_red", "factor_skin_blue", "age", "sex"]
    assert table.groupby("patient_id")[patient].nunique().max().max() == 1
    several = table.groupby("lesion_id").filter(lambda part: len(part) > 1)
    assert several.groupby("lesion_id").factor_vignette.nunique().gt(1).mean() > 0.8


def test_lesions_of_a_patient_resemble_each_other(table: pd.DataFrame) -> None:
    lesions = table.drop_duplicates("lesion_id")
    first, second = (lesions.groupby("patient_id").nth(k).set_index("patient_id") for k in (0, 1))
    pairs = first[SCORES].join(second[SCORES].add_suffix("_second"), how="inner")
    for name in SCORES:
        r = np.corrcoef(pairs[name], pairs[f"{name}_second"])[0, 1]
        assert r == pytest.approx(0.2, abs=0.06)


# ------------------------------------------------------------------------ nuisances and metadata


@pytest.mark.parametrize("name", ["pattern", "hairs", "ruler", "bubbles"])
def test_countable_nuisances_say_nothing_about_the_label(lesions: pd.DataFrame, name: str) -> None:
    counts = pd.crosstab(lesions[f"factor_{name}"], lesions.target)
    assert chi2_contingency(counts).pvalue > 1e-3


@pytest.mark.parametrize(
    "name", ["density", "warmth", "softness", "skin_red", "skin_green", "skin_blue", "vignette"]
)
def test_continuous_nuisances_say_nothing_about_the_label(lesions: pd.DataFrame, name: str) -> None:
    values = lesions[f"factor_{name}"]
    assert ks_2samp(values[lesions.target == 1], values[lesions.target == 0]).pvalue > 1e-3


def test_metadata_are_linked_to_the_label_as_in_the_clinic(lesions: pd.DataFrame) -> None:
    malignant, benign = lesions[lesions.target == 1], lesions[lesions.target == 0]
    assert 7 < malignant.age.mean() - benign.age.mean() < 15
    assert mannwhitneyu(malignant.age, benign.age, alternative="greater").pvalue < 1e-6
    assert malignant.sex.eq("male").mean() - benign.sex.eq("male").mean() > 0.05
    assert chi2_contingency(pd.crosstab(lesions.site, lesions.target)).pvalue < 1e-6
    assert set(lesions.sex) == {"male", "female"}
    assert lesions.age.between(5, 85).all()


def test_metadata_say_nothing_about_the_image_beyond_the_label(table: pd.DataFrame) -> None:
    """Otherwise a picture and an age together could reveal more than either label allows."""
    single = table[table.groupby("patient_id").lesion_id.transform("nunique") == 1]
    for _, part in single.drop_duplicates("patient_id").groupby("target"):
        r = part[[*SCORES, "factor_density"]].corrwith(part.age)
        assert r.abs().max() < 4 / np.sqrt(len(part))


# ------------------------------------------------------------------------------- oracle and broken


def test_the_oracle_draws_from_the_datasets_malignant_images(lesions: pd.DataFrame) -> None:
    oracle = sample_malignant_table(3000, seed=1)
    malignant = lesions[lesions.target == 1]
    assert len(oracle) == 3000
    assert oracle.target.eq(1).all()
    assert oracle.image_id.is_unique
    assert oracle.lesion_id.is_unique
    assert oracle.patient_id.is_unique
    columns = [*SCORES, "factor_probability", "factor_density", "factor_skin_green"]
    for name in [*columns, "factor_hairs", "factor_vignette"]:
        assert ks_2samp(oracle[name], malignant[name]).pvalue > 1e-3, name


def test_the_broken_generator_does_not(lesions: pd.DataFrame) -> None:
    broken = sample_malignant_table(800, seed=1, quality="broken")
    for target in (0, 1):
        real = lesions[lesions.target == target]
        assert broken.factor_probability.max() < real.factor_probability.median()
    assert broken.lesion_id.nunique() <= 100
    assert len(broken) == 800


def test_a_longer_pool_begins_with_the_shorter_one() -> None:
    short, long = (sample_malignant_table(n, seed=4) for n in (50, 1200))
    pd.testing.assert_frame_equal(short, long.head(50))


def test_pools_are_independent_of_a_dataset_with_the_same_seed() -> None:
    dataset, _, _ = sample_dataset(replace(SMALL, prevalence=0.9), 5, progress=False, workers=1)
    pool = sample_malignant(12, 5, config=replace(SMALL, prevalence=0.9, size=64))
    distance = np.abs(dataset[:, None].astype(int) - pool[None]).mean((2, 3, 4))
    assert distance.min() > 5  # grey levels: no image of one is a near copy of one of the other


def test_broken_images_are_smoother_and_less_diverse() -> None:
    oracle, broken = (
        sample_malignant(48, 2, quality, PhantomConfig(size=64)) for quality in ("oracle", "broken")
    )
    detail = [
        np.mean([cv2.Laplacian(i, cv2.CV_32F).std() for i in part]) for part in (oracle, broken)
    ]
    assert detail[1] < 0.8 * detail[0]
    spread = [part.std(0).mean() for part in (oracle, broken)]
    assert spread[1] < spread[0]


# -------------------------------------------------------------------------------------- the images


def test_the_same_seed_draws_the_same_images_on_any_number_of_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(render, "WORTH", 64)
    config = PhantomConfig(patients=60, size=32)  # more than one chunk of work
    one, table, info = sample_dataset(config, 9, progress=False, workers=1)
    two, again, _ = sample_dataset(config, 9, progress=False, workers=2)
    assert np.array_equal(one, two)
    assert table.equals(again)
    assert one.dtype == np.uint8
    assert one.shape == (len(table), 32, 32, 3)
    assert info["best_auc"] == 0.9
    assert info["best_auc_in_sample"] == roc_auc_score(table.target, table.factor_probability)
    other, _, _ = sample_dataset(config, 10, progress=False, workers=1)
    assert not np.array_equal(one[:10], other[:10])


def test_images_of_a_lesion_differ_in_view_but_look_alike() -> None:
    one, same = (draw(look(image_seed=k, pattern="globular"), 96) for k in (1, 2))
    other = draw(look(image_seed=1, lesion_seed=2, density=0.5, warmth=0.9), 96)
    assert np.abs(one.astype(int) - same).mean() > 3

    def palette(image: np.ndarray) -> np.ndarray:  # of the middle: the lesion, in any view
        return np.percentile(image[32:64, 32:64].reshape(-1, 3), [20, 50, 80], axis=0)

    assert (
        np.abs(palette(one) - palette(same)).mean() < np.abs(palette(one) - palette(other)).mean()
    )


@pytest.mark.parametrize("size", [64, 256, 512])
def test_the_look_does_not_depend_on_the_size(size: int) -> None:
    """Drawn large and shrunk is the same picture as drawn small, sensor noise aside."""
    for seed in range(4):
        this = look(border=0.8, colour=0.9, hairs=4, bubbles=2, ruler=True, lesion_seed=seed)
        reference, image = draw(this, 128), draw(this, size)
        low = [cv2.resize(i, (32, 32), interpolation=cv2.INTER_AREA) for i in (reference, image)]
        assert np.abs(low[0].astype(int) - low[1]).mean() < 2.5


@pytest.mark.parametrize(
    ("change", "least"),
    [({"hairs": 8}, 0.5), ({"ruler": True}, 0.3), ({"bubbles": 4}, 0.1), ({"vignette": 1.5}, 1.0)],
)
def test_each_nuisance_is_seen(change: dict[str, object], least: float) -> None:
    change_seen = draw(look(**change), 128).astype(int) - draw(look(), 128)
    assert np.abs(change_seen).mean() > least


def test_each_factor_is_seen() -> None:
    """A larger diameter covers more, more colours spread the hue, an uneven border is longer."""

    def lesion(**changes: float) -> np.ndarray:
        images = [draw(look(lesion_seed=k, image_seed=k, **changes), 96) for k in range(12)]
        return np.stack(images).astype(float)

    def dark(images: np.ndarray) -> np.ndarray:
        green = np.stack([cv2.GaussianBlur(image[..., 1], (0, 0), 1) for image in images])
        return green < 0.8 * np.median(green[:, :8], axis=(1, 2))[:, None, None]

    def edge(images: np.ndarray) -> float:
        mask = dark(images).astype(np.int8)
        length = np.abs(np.diff(mask, axis=1)).sum() + np.abs(np.diff(mask, axis=2)).sum()
        return length / np.sqrt(mask.sum())

    def hues(images: np.ndarray) -> float:
        return float(
            np.mean(
                [np.log(i[m] + 12).std(0).mean() for i, m in zip(images, dark(images), strict=True)]
            )
        )

    def lopsided(images: np.ndarray) -> float:
        turned = images[:, ::-1, ::-1]
        return float(np.abs(images - turned).mean() / images.std())

    assert dark(lesion(diameter=0.6)).mean() > 1.7 * dark(lesion(diameter=0.4)).mean()
    assert edge(lesion(border=0.9)) > 1.2 * edge(lesion(border=0.1))
    assert hues(lesion(colour=0.95)) > 1.2 * hues(lesion(colour=0.05))
    assert lopsided(lesion(asymmetry=0.95)) > 1.1 * lopsided(lesion(asymmetry=0.05))


def pixel_features(image: np.ndarray) -> np.ndarray:
    """Crude: how much is dark, how dark and how varied, how long the border is."""
    depth = -np.log((image.astype(np.float32) + 12) / (np.median(image[:6], axis=(0, 1)) + 12))
    green = cv2.GaussianBlur(depth[..., 1], (0, 0), 0.8)
    mask = green > 0.25
    edge = np.abs(np.diff(mask.astype(int), axis=0)).sum() / np.sqrt(mask.sum() + 1)
    inside = depth[mask] if mask.sum() > 9 else depth.reshape(-1, 3)
    hue = inside / np.maximum(inside.sum(1, keepdims=True), 0.2)
    return np.array(
        [np.log(mask.mean() + 0.01), edge, *inside.std(0), *inside.mean(0), *hue.std(0)]
    )


def test_pixels_carry_signal_and_do_not_beat_the_bound(
    drawn: tuple[np.ndarray, pd.DataFrame, dict[str, float]],
) -> None:
    images, table, info = drawn
    features = np.stack([pixel_features(image) for image in images])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    folds = GroupKFold(5)
    score = cross_val_predict(
        model, features, table.target, groups=table.patient_id, cv=folds, method="predict_proba"
    )[:, 1]
    assert 0.68 < roc_auc_score(table.target, score) < info["best_auc_in_sample"]


def test_palette_is_that_of_dermoscopy(
    drawn: tuple[np.ndarray, pd.DataFrame, dict[str, float]],
) -> None:
    """Against HAM10000, measured at 128 px: skin's median RGB, and contrast of the middle."""
    images, _, _ = drawn
    ring = np.concatenate([images[:, 3:7, 10:-10], images[:, -7:-3, 10:-10]], axis=1)
    skin = np.median(ring.reshape(len(images), -1, 3), axis=1)
    assert np.abs(np.median(skin, axis=0) - [204, 150, 159]).max() < 15
    middle = np.median(images[:, 27:37, 27:37].reshape(len(images), -1, 3), axis=1)
    contrast = np.log(np.median(skin, axis=0) / np.median(middle, axis=0))
    assert np.all(np.abs(contrast - [0.27, 0.66, 0.75]) < 0.25)


# ------------------------------------------------------------------------------- bad input, command


@pytest.mark.parametrize(
    "change",
    [
        {"patients": 0},
        {"prevalence": 0.0},
        {"prevalence": 1.0},
        {"best_auc": 0.5},
        {"best_auc": 1.0},
        {"size": 8},
    ],
)
def test_impossible_settings_are_refused_by_name(change: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"^{flag(next(iter(change)))} "):
        PhantomConfig(**change)


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(UserError, match="count 0"):
        sample_malignant(0, 1)


def test_drawing_nothing_gives_an_empty_array() -> None:
    assert draw_all([], 32).shape == (0, 32, 32, 3)


@pytest.mark.slow
def test_the_command_writes_a_pool_with_its_provenance(tmp_path: Path) -> None:
    out = tmp_path / "oracle"
    words = ["--count", "5", "--seed", "3", "--size", "32", "--out", str(out)]
    command = [sys.executable, "-m", "data.phantom", *words]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    images = np.load(out / "images.npy", allow_pickle=False)
    assert np.array_equal(images, sample_malignant(5, 3, config=PhantomConfig(size=32)))
    provenance = json.loads((out / "pool.json").read_text())["provenance"]
    assert provenance["kind"] == "phantom"
    assert provenance["quality"] == "oracle"
    again = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
