import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from comparison_rows import comparison
from experiment_folders import (
    GAN_SEEDS,
    SEEDS,
    SETS,
    comparisons,
    experiment,
    gan_seed,
    page_of,
    section,
    trials,
    words_of,
    write_experiment,
)

from dermsynth.errors import UserError
from dermsynth.manifest import seal
from experiments import numbers, plots
from experiments import page as report
from experiments.records import KIND


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return page_of(write_experiment(tmp_path_factory.mktemp("exp") / "ham-quick"))


def test_images_without_ids_are_a_warning_beside_the_verdict(tmp_path, page):
    content = experiment(("test",))
    said = "9,605 of 10,015 images have neither a patient nor a lesion id: the scores may be high"
    content["data_warnings"] = [said, "external set clinic: all 30 images have neither"]
    warned = page_of(write_experiment(tmp_path / "e", ("test",), experiment=content))
    head = words_of(warned[: warned.index('<h2 id="differences"')])
    assert f"Ids are missing. {said}. External set clinic: all 30 images have neither." in head
    assert "Ids are missing" not in page
    assert "no patient id" not in words_of(page)


def test_what_a_lesion_id_alone_leaves_open_is_said_with_the_data(tmp_path):
    content = experiment(("test",))
    grouping = {"images": 10015, "with_patient": 0, "with_lesion": 10015, "with_neither": 0}
    content["dataset"]["info"]["grouping"] = grouping
    words = words_of(page_of(write_experiment(tmp_path / "e", ("test",), experiment=content)))
    assert "All 10,015 images have a lesion id but no patient id" in words
    assert "Ids are missing" not in words


def test_the_target_is_called_what_the_dataset_calls_it(tmp_path):
    content = experiment(("test",))
    meaning = {"one": "melanoma", "zero": "not melanoma", "positive": ["mel"], "told_by": ""}
    content["dataset"]["info"]["target"] = meaning
    page = page_of(write_experiment(tmp_path / "e", ("test",), experiment=content))
    words = words_of(page)
    assert "part not melanoma melanoma images" in words
    assert "Real. Images of melanoma, of datasets/ham10000; 712 in the training part" in words
    assert "44 groups are melanoma" in words
    assert "real melanoma images duplicated" in words
    assert "benign" not in words
    assert "malignant" not in words


def test_screen_and_page_say_the_same(page):
    words = words_of(page)
    for sentence in report.summary(comparisons()):
        assert numbers.typographic(sentence) in words


def test_verdict_comes_first(page):
    titles = re.findall(r'<h2 id="([^"]*)"', page)
    assert page.index('class="verdict"') < page.index(f'<h2 id="{titles[0]}"')
    assert titles[:3] == ["differences", "comparisons", "for-patients"]


def test_every_number_of_the_comparisons_is_on_the_page(page):
    words = section(page, "comparisons")
    for row in comparisons():
        for key in ("auc_arm", "auc_reference", "mde", "mde_helps", "mde_hurts", "margin"):
            assert numbers.number(row[key]) in words
        assert f"{row['delta_auc']:+.3f}".replace("-", "−") in words
        for ends in (("ci_low", "ci_high"), ("ci_low_models", "ci_high_models")):
            assert numbers.interval(*(row[key] for key in ends)) in words
        for key in ("p_delong", "p_models", "p", "p_holm"):
            assert numbers.p_value(row[key]) in words
        assert row["family"] in words
        assert f"{row['n']:,}" in words
        assert row["verdict"] in words


def test_what_an_auc_does_not_say_is_on_the_page(page):
    words = section(page, "beside-the-auc")
    for title in numbers.METRICS.values():
        assert title in words
    assert words.count("[−0.021, +0.049]") == 2 * len(numbers.METRICS) * len(comparisons())
    words = section(page, "by-subgroup")
    assert "0.870 0.881 +0.011 [−0.013, +0.035] 205 29 22" in words
    assert "dark skin tone – – – 31 4 3 too few to say; 1 fold lacks a class" in words


def test_warnings_of_generators_are_in_the_verdict(tmp_path):
    settings = experiment(["test"]) | {"warnings": ["the generator of seed 0 copies"]}
    page = page_of(write_experiment(tmp_path, ["test"], experiment=settings))
    head = page[page.index('class="verdict"') : page.index("</header>")]
    assert "The synthetic images are at fault. The generator of seed 0 copies." in words_of(head)


def test_arms_are_explained_with_their_options(page):
    assert "malignant ones made by the generator (synthetic: 0.3)" in words_of(page)


def test_every_trial_is_on_the_page(page, tmp_path):
    table = trials(np.random.default_rng(0), tuple(SETS))
    words = section(page, "trials")
    for row in table.itertuples():
        assert f"{table.loc[row.Index, 'test/auc']:.3f}" in words
    means = table.groupby("arm")["test/auc"].agg(["mean", "std"])
    for arm in means.index:
        assert f"{means.loc[arm, 'mean']:.3f} ± {means.loc[arm, 'std']:.3f}" in words


def test_page_is_self_contained(page):
    loads = re.findall(r"""(?:src|srcset|action|data)\s*=\s*["']([^"']*)""", page)
    assert len(loads) == 2 + 1  # grids, closest
    assert all(load.startswith("data:image/") for load in loads)
    assert page.count("<svg ") == 2 * (1 + 2 + 2 + 1 + 1) + 2  # two widths; ROC has one
    links = re.findall(r"""href\s*=\s*["']([^"']*)""", page)
    apart = {link for link in links if not link.startswith(("#", "data:text/csv"))}
    assert apart == {
        "https://doi.org/10.1148/ryai.240300",
        "https://doi.org/10.1136/bmj-2023-078378",
    }
    assert page.count("<script>") == 1  # that of the base
    page = page.replace("default-src 'none'", "")
    page = re.sub(r"url\(#", "", page)
    assert "url(" not in page
    assert "@import" not in page


def test_file_content_is_escaped(tmp_path):
    nasty = '<img src="https://example.org/x.png" onerror=alert(1)>'
    settings = experiment(["test"]) | {"name": nasty, "command": nasty, "config": {nasty: nasty}}
    settings["dataset"] = {"path": nasty, "info": {nasty: [nasty]}}
    settings["gan"][0] |= {"run": nasty, "evaluation": {"evaluation_network": nasty, "kid": 0.1}}
    settings["roc"] = {"test": {f"{nasty} $x_1$": settings["roc"]["test"]["real"]}}
    table = trials(np.random.default_rng(0), ["test"])
    table["arm"] = table["arm"].replace("synthetic", nasty)
    rows = [comparison(arm=nasty, note=nasty)]
    page = page_of(
        write_experiment(tmp_path, ["test"], experiment=settings, trials=table, comparisons=rows)
    )
    assert nasty not in page
    assert "<img src=&#34;" not in page.replace("&lt;img", "")
    assert words_of(page).count(nasty) >= 8


def test_leaky_trials_are_announced_before_the_verdict(tmp_path):
    table = trials(np.random.default_rng(0), ["test"])
    table.loc[table["arm"] == "synthetic", "leaky"] = True
    page = page_of(write_experiment(tmp_path, ["test"], trials=table))
    assert page.index("Leaky.") < page.index('class="verdict"')
    assert words_of(page).count("leaky") >= len(GAN_SEEDS) * len(SEEDS)


def test_failed_trials_are_listed_and_left_out_of_means(tmp_path):
    table = trials(np.random.default_rng(0), ["test"])
    lost = table.index[table["arm"] == "real"][0]
    rest = table.loc[(table["arm"] == "real") & (table.index != lost), "test/auc"]
    table.loc[lost, "status"] = "failed"
    columns = [name for name in table if name.startswith("test/")]
    table.loc[lost, [*columns, "auc_val", "seconds"]] = np.nan
    words = words_of(page_of(write_experiment(tmp_path, ["test"], trials=table)))
    assert "1 of 12 trials did not finish." in words
    assert "11 of 12" in words
    assert "failed" in words
    assert not re.search(r"\bnan\b", words)
    assert f"{rest.mean():.3f} ± {rest.std():.3f}" in words


def test_missing_parts_are_named_not_fatal(tmp_path):
    settings = experiment(["test"])
    for key in ("gan", "roc", "grids", "versions", "counts"):
        settings[key] = type(settings[key])()
    settings["dataset"].pop("info")
    words = words_of(page_of(write_experiment(tmp_path, ["test"], experiment=settings)))
    for said in ("No generator was trained", "No curves were recorded", "no picture"):
        assert said in words
    assert not re.search(r"\bNone\b", words)


def test_generator_without_evaluation(tmp_path):
    settings = experiment(["test"])
    settings["gan"] = [gan_seed(0) | dict.fromkeys(("evaluation", "evaluated", "generator"))]
    assert "Not evaluated." in words_of(
        page_of(write_experiment(tmp_path, ["test"], experiment=settings))
    )


def test_nothing_finished(tmp_path):
    table = trials(np.random.default_rng(0), ["test"]).assign(status="failed")
    settings = experiment(["test"]) | {"roc": {}, "gan": []}
    page = page_of(
        write_experiment(
            tmp_path, ["test"], trials=table, experiment=settings, comparisons=[], paired=[]
        )
    )
    assert "No verdict: no two arms" in words_of(page)


def test_generator_figures():
    evaluation = gan_seed(0)["evaluation"]
    assert numbers.gan_figure("kid", evaluation) == "33.1 ± 2.1"
    assert numbers.gan_figure("kid_floor", evaluation) == "1.5 ± 1.2"
    assert numbers.gan_figure("recall", evaluation) == "0.43 (real 0.91)"
    assert numbers.gan_figure("memorisation", evaluation) == "0.96, no copying seen"
    copied = evaluation | {"memorisation": 0.31, "memorisation_flagged": True}
    assert numbers.gan_figure("memorisation", copied) == "0.31, copies of training images"
    assert "pixels 0.98, near copies 0.0%" in numbers.gan_figure("memorisation_in", evaluation)
    assert numbers.gan_figure("n_synthetic", evaluation) == "500"
    assert numbers.gan_figure("recall", {"kid": 0.1}) == "–"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        *((4.24, "4.2 s"), (42, "42 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s")),
        *((3900, "1 h 05 min"), (None, "–"), (float("nan"), "–")),
    ],
)
def test_duration(seconds, expected):
    assert numbers.duration(seconds) == expected


def test_lines_join_equal_seeds_only():
    columns = ["arm", "fold", "seed", "gan_seed", "auc"]
    rows = [("a", 0, 0, None, 0.1), ("a", 0, 1, None, 0.2)]
    rows += [("b", 0, seed, gan, 0.3 + seed + gan / 10) for seed in (0, 1, 2) for gan in (0, 1)]
    rows += [("c", 0, 0, 0, 5.0), ("c", 0, 0, 1, 6.0)]
    table = pd.DataFrame(rows, columns=columns).astype({"gan_seed": "Int64"})
    to_gans = [(0.1, 0.3), (0.1, 0.4), (0.2, 1.3), (0.2, 1.4)]
    np.testing.assert_allclose(sorted(plots._pairs(table, "a", "b", "auc")), to_gans)
    assert sorted(plots._pairs(table, "b", "c", "auc")) == [(0.3, 5.0), (0.4, 6.0)]


def test_same_experiment_gives_the_same_bytes(tmp_path):
    folder = write_experiment(tmp_path, ["test"])
    assert page_of(folder) == page_of(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("manifest.json", None, "no finished experiment there"),
        ("experiment.json", None, "experiment.json: cannot be read"),
        ("comparisons.json", b"[]", "comparisons.json: it is not what was written"),
        ("trials.parquet", b"", "trials.parquet: it is not what was written"),
        ("trials.parquet", None, "trials.parquet: cannot be read"),
    ],
)
def test_damaged_folder_is_refused(tmp_path, name, content, message):
    folder = write_experiment(tmp_path, ["test"])
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        report.write_report(folder)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("comparisons.json", b"[{", "comparisons.json: not JSON"),
        ("comparisons.json", b'[{"arm": "a"}]', "comparisons.json: 0.reference: field required"),
        ("experiment.json", b"[]", "experiment.json: the whole file"),
        ("trials.parquet", b"PAR1", "trials.parquet: damaged"),
    ],
)
def test_what_another_program_wrote_is_checked(tmp_path, name, content, message):
    folder = write_experiment(tmp_path, ["test"])
    (folder / name).write_bytes(content)
    seal(folder, KIND, {})
    with pytest.raises(UserError, match=message):
        report.write_report(folder)


@pytest.mark.slow
def test_command(tmp_path):
    folder = write_experiment(tmp_path / "exp", ["test"])
    command = [sys.executable, "-m", "experiments.report"]
    root = Path(__file__).parents[2]
    done = subprocess.run([*command, folder], cwd=root, capture_output=True, text=True, check=True)
    page = folder / "report.html"
    assert done.stdout.splitlines() == [str(page), f"next: python -m webbrowser {page}"]
    wrong = subprocess.run([*command, tmp_path], cwd=root, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: ")
    assert "Traceback" not in wrong.stderr
