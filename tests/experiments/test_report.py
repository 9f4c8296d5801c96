import base64
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from comparison_rows import comparison
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from dermsynth.errors import UserError
from dermsynth.manifest import digest, seal
from experiments import numbers, plots
from experiments import page as report
from experiments.records import KIND

SEEDS, GAN_SEEDS = (0, 1, 2), (0, 1)
SETS = {"test": (412, 58, 310, 44), "external/isic2019": (2065, 411, 2065, 411)}


def comparisons():
    """Primary, control and external comparisons."""
    external = {"test_set": "external/isic2019", "n": 2065, "n_malignant": 411, "n_groups": 2065}
    external |= {"n_malignant_groups": 411, "mde": 0.0121}
    numbers = {"auc_reference": 0.7403, "auc_arm": 0.7611, "delta_auc": 0.0208, "ci_low": 0.0115}
    numbers |= {"ci_high": 0.0301, "p": 0.0001, "p_holm": 0.0006, "p_delong": 0.00004}
    numbers |= {"family": "external-primary", "verdict": "helps", "p_models": 0.00002}
    control = {"auc_reference": 0.8735, "auc_arm": 0.8742, "delta_auc": 0.0007, "ci_low": -0.0092}
    control |= {"ci_high": 0.0107, "family": "secondary"}
    duplicated = {"arm": "real_oversampled", "scope": "arms", "family": "secondary"}
    duplicated |= {"auc_arm": 0.8735, "delta_auc": 0.0023, "verdict": "undecidable"}
    duplicated |= {"why_undecidable": "one classifier seed", "ci_low": None, "ci_high": None}
    duplicated |= {"p": None, "p_holm": None, "mde": None, "mde_helps": None, "mde_hurts": None}
    return [
        comparison(),
        comparison(reference="real_oversampled", **control),
        comparison(**duplicated),
        comparison(**external, **numbers),
        comparison(**external, **numbers | {"reference": "real_oversampled"}),
    ]


def trials(rng, sets):
    """Finished trials of three arms whose scores share the difficulty of the images."""
    rows, scores = [], {}
    arms = [("real", None), ("real_oversampled", None), *(("synthetic", s) for s in GAN_SEEDS)]
    for name in sets:
        n, malignant, *_ = SETS[name]
        target = (np.arange(n) < malignant).astype(int)
        scores[name] = target, 1.35 * target + rng.normal(0, 0.8, n)
    for arm, gan_seed in arms:
        for seed in SEEDS:
            row = {"arm": arm, "fold": 0, "seed": seed, "gan_seed": gan_seed, "status": "done"}
            row |= {"seconds": rng.uniform(60, 90), "leaky": False, "auc_val": 0.9}
            for name in sets:
                target, base = scores[name]
                score = base + rng.normal(0, 0.6, len(base))
                fpr, tpr, _ = roc_curve(target, score)
                row[f"{name}/auc"] = roc_auc_score(target, score)
                row[f"{name}/average_precision"] = average_precision_score(target, score)
                row[f"{name}/sensitivity_at_95_specificity"] = tpr[fpr <= 0.05].max()
            rows.append(row)
    return pd.DataFrame(rows).astype({"gan_seed": "Int64"})


def roc_bands(sets):
    """Smooth curves of a binormal model with a made-up band."""
    fpr = np.linspace(0, 1, 101)
    bands = {}
    for name in sets:
        bands[name] = {}
        for arm, strength in (("real", 0.150), ("real_oversampled", 0.147), ("synthetic", 0.144)):
            tpr, spread = fpr**strength, 0.07 * np.sin(np.pi * fpr) ** 0.5 * (1 - fpr)
            band = {
                "fpr": fpr,
                "tpr": tpr,
                "low": tpr - spread,
                "high": np.minimum(tpr + spread, 1),
            }
            auc = 1 / (1 + strength)
            bands[name][arm] = {key: value.tolist() for key, value in band.items()} | {
                "auc": auc,
                "ci_low": auc - 0.03,
                "ci_high": auc + 0.03,
            }
    return bands


def gan_seed(seed):
    """What the runner records of one generator."""
    evaluation = {"kid": 0.0331, "kid_std": 0.0021, "kid_floor": 0.0015, "kid_floor_std": 0.0012}
    evaluation |= {"precision": 0.71, "recall": 0.43, "density": 0.82, "coverage": 0.66}
    evaluation |= {"floor": {"precision": 0.93, "recall": 0.91, "density": 1.01, "coverage": 0.97}}
    evaluation |= {"memorisation": 0.962, "memorisation_flagged": False, "n_real": 223}
    near = {"features": {"ratio": 0.962, "near_copies": 0.004}}
    near |= {"pixels": {"ratio": 0.981, "near_copies": 0.0}}
    evaluation |= {"memorisation_in": near, "n_synthetic": 500}
    evaluation |= {"evaluation_network": "resnet18, from scratch on the diagnoses of fold 0"}
    generator = {"architecture": {"name": "lean", "width": 32}, "fold": 0, "size": 128}
    record = {
        "seed": seed,
        "fold": 0,
        "run": f"pools/default-fold0-seed{seed}",
        "evaluated": f"evaluations/default-fold0-seed{seed}",
        "kimg": 12.4 + seed,
        "seconds": 301.5,
    }
    return record | {"evaluation": evaluation, "generator": generator | {"n_training": 891}}


def experiment(sets):
    """experiment.json as the runner writes it."""
    info = {"schema_version": 1, "folds_hash": "3f9a" * 16, "licence": "CC BY-NC 4.0"}
    info |= {"options": {"source": "ham10000", "folds": 5, "test_fraction": 0.2, "seed": 0}}
    info |= {"counts": {"fold": {"0": 1601, "1": 1603, "2": 1602, "3": 1600, "4": 1601}}}
    info |= {"duplicates": {"byte-identical pairs": 2, "near-duplicate pairs": 23}}
    config = {"arms": {"real": {}, "real_oversampled": {"oversample": 0.3}}}
    config["arms"]["synthetic"] = {"synthetic": 0.3}
    config |= {"seeds": list(SEEDS), "gan_seeds": list(GAN_SEEDS), "margin": 0.01, "folds": [0]}
    counts = {"train": {"benign": 5698, "malignant": 712, "groups": 4790}}
    counts |= {"val": {"benign": 1424, "malignant": 178, "groups": 1192}}
    counts |= {"test": {"benign": 354, "malignant": 58, "groups": 310}}
    machine = {"cpu": "Xeon, 2.1 GHz", "cores": 2, "memory_gib": 15.6, "device": "cpu, fp32"}
    return {
        **{"name": "ham-quick", "config": config, "counts": counts, "machine": machine},
        "command": "python -m experiments.run experiments/configs/quick.yaml "
        "--data datasets/ham10000 --out runs/exp/ham-quick",
        "dataset": {"path": "datasets/ham10000", "folds_hash": "3f9a" * 16, "info": info},
        "versions": {"python": "3.11.9", "torch": "2.13.0", "timm": "1.0.31"},
        **{"started": "2026-03-02 14:05", "seconds": 2310.4, "roc": roc_bands(sets)},
        "gan": [gan_seed(seed) for seed in GAN_SEEDS],
        "grids": {"real": "grids/real.png", "synthetic": "grids/synthetic.png"},
    }


def paired():
    """paired.json of the comparisons, with subgroups in the first."""
    none = {"ci_low": None, "ci_high": None}
    metric = {"arm": 0.512, "reference": 0.498, "delta": 0.0137, "ci_low": -0.021, "ci_high": 0.049}
    metrics = [{"name": name, **metric} for name in numbers.METRICS]
    curve = [
        {"name": f"net_benefit_{at}", "threshold": at, "treat_all": 0.1 - at, **metric}
        for at in (0.02, 0.1, 0.5)
    ]
    curve[2] |= {"arm": None, "reference": None, "delta": None, **none}
    subgroup = {"variable": "skin_tone", "name": "dark", "n": 31, "n_malignant": 4}
    subgroup |= {"n_malignant_groups": 3, "folds_left_out": 1, "few": True}
    women = {"variable": "sex", "name": "female", "n": 205, "n_malignant": 29}
    women |= {"n_malignant_groups": 22, "folds_left_out": 0, "few": False, "auc_arm": 0.8812}
    women |= {"auc_reference": 0.8701, "delta_auc": 0.0111, "ci_low": -0.013, "ci_high": 0.0352}
    names = ("arm", "reference", "test_set")
    rows = [
        {key: row[key] for key in names}
        | {"replicates": 200, "metrics": metrics, "decision_curve": curve, "subgroups": []}
        for row in comparisons()
    ]
    rows[0]["subgroups"] = [women, subgroup]
    return rows


def grid(path, rng):
    """A picture that stands for 4 x 4 lesions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tiles = rng.integers(90, 220, (4, 4, 3)).astype(np.uint8)
    Image.fromarray(tiles).resize((528, 528), Image.Resampling.BICUBIC).save(path)


def write_experiment(folder, sets=("test", "external/isic2019"), **changes):
    """A realistic experiment folder; `changes` replace the content of its files by name."""
    rng = np.random.default_rng(0)
    content = {"comparisons": [c for c in comparisons() if c["test_set"] in sets]}
    content |= {"paired": [row for row in paired() if row["test_set"] in sets]}
    content |= {"experiment": experiment(sets), "trials": trials(rng, sets)} | changes
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("comparisons", "experiment", "paired"):
        (folder / f"{name}.json").write_text(json.dumps(content[name]))
    content["trials"].to_parquet(folder / "trials.parquet", index=False)
    for name in ("real", "synthetic"):
        grid(folder / "grids" / f"{name}.png", rng)
    evaluation = folder / "evaluations" / "default-fold0-seed0"
    grid(evaluation / "memorisation.png", rng)
    seal(evaluation, "generator-evaluation", {})
    seal(folder, KIND, {"comparisons": digest(content["comparisons"])})
    return folder


def page_of(folder):
    """The report's HTML."""
    return report.write_report(folder).read_text(encoding="utf-8")


def words_of(page):
    """The text that a reader sees, whitespace collapsed."""
    parts, hidden = [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            hidden.extend([tag] if tag in ("style", "script") else [])

        def handle_endtag(self, tag):
            if tag in hidden:
                hidden.remove(tag)

        def handle_data(self, data):
            parts.extend([] if hidden else [data])

    Reader().feed(page)
    return " ".join(" ".join(parts).split())


def section(page, slug):
    """The text of one section of the page."""
    start = page.index(f'<h2 id="{slug}"')
    return words_of(page[start : page.index("</section>", start)])


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
    assert "0.870 → 0.881 +0.011 [−0.013, +0.035] 205 29 22" in words
    assert "dark skin tone – → – – 31 4 3 too few to say; 1 fold lacks a class" in words


def test_warnings_of_generators_are_in_the_verdict(tmp_path):
    settings = experiment(["test"]) | {"warnings": ["the generator of seed 0 copies"]}
    page = page_of(write_experiment(tmp_path, ["test"], experiment=settings))
    head = page[page.index('class="verdict"') : page.index("</header>")]
    assert "The synthetic images are at fault. The generator of seed 0 copies." in words_of(head)


def test_arms_are_explained_with_their_options(page):
    assert "malignant ones made by the generator (synthetic: 0.3)" in words_of(page)


def operating(arm, threshold, sensitivity, specificity):
    """What an arm reaches at a threshold."""
    names = ("sensitivity", "specificity")
    rates = {
        name: {"value": value, "low": value - 0.05, "high": value + 0.04}
        for name, value in zip(names, (sensitivity, specificity), strict=True)
    }
    counts = {"n_models": 3, "n": 412, "n_malignant": 58, "n_groups": 310}
    counts |= {"n_malignant_groups": 44}
    return {"arm": arm, "test_set": "test", "threshold": threshold, **counts, **rates}


def test_a_clinician_reads_counts_of_lesions_at_three_prevalences(tmp_path):
    content = experiment(("test",))
    content["operating"] = [
        operating("real", "sensitivity_95", 0.9, 0.8),
        operating("synthetic", "sensitivity_95", 0.94, 0.75),
        operating("real", "youden", 0.85, 0.85),
    ]
    page = page_of(write_experiment(tmp_path / "e", ("test",), experiment=content))
    words = section(page, "for-patients")
    assert "at a prevalence of 14.1%, that of the test images: 141 of 1,000 are malignant" in words
    assert "at a prevalence of 1.0%: 10 of 1,000 are malignant" in words
    ten = words[words.index("at a prevalence of 10.0%: 100 of 1,000 are malignant") :]
    assert "real 90.0 [85.0, 94.0] 10.0 [6.0, 15.0] 180 [144, 225] 0.333 [" in ten
    assert "synthetic 94.0 [89.0, 98.0] 6.0 [2.0, 11.0] 225 [189, 270] 0.295 [" in ten
    assert "real test Youden's index on validation 3 0.850 [0.800, 0.890]" in words
    assert "412 58 310 44" in words


def test_an_old_record_says_that_it_has_no_operating_points(page):
    assert "No operating points were recorded: run the experiment again with --resume" in section(
        page, "for-patients"
    )


def test_mistakes_are_shown_with_their_diagnosis(tmp_path):
    content = experiment(("test",))
    one = {"file": "mistakes/00.jpg", "image_id": "ISIC_1", "diagnosis": "seborrheic_keratosis"}
    one |= {"target": 0, "wrong": 9, "n_models": 15, "wrong_reference": 0, "n_models_reference": 5}
    content["mistakes"] = [one]
    (tmp_path / "e" / "mistakes").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "e" / one["file"])
    page = page_of(write_experiment(tmp_path / "e", ("test",), experiment=content))
    words = section(page, "for-patients")
    assert "Missed: malignant that is not called so: none by most models." in words
    said = "seborrheic keratosis wrong by 9 of 15; reference 0 of 5 ISIC_1"
    assert said in words
    assert "data:image/jpeg;base64," in page


def test_subgroups_with_few_are_in_the_table_and_not_drawn(page):
    start = page.index('<h2 id="by-subgroup"')
    drawn = page[start : page.index("<table", start)]
    assert "female, sex" in drawn
    assert "dark" not in drawn
    assert "1 of 2 subgroups are in the table only" in words_of(drawn)


def test_a_statistician_finds_flow_missing_data_and_the_plan(tmp_path):
    content = experiment(("test",))
    content["dataset"]["info"] |= {"rows": 8100, "dropped": {"unreadable file": ["a", "b"]}}
    content["dataset"]["info"]["counts"]["images"] = 8007
    part = {"images": 412, "malignant": 58, "groups": 310, "lesions": 300, "patients": 0}
    part |= {"without_lesion": 7, "without_patient": 412, "missing": {"age": 31, "sex": 0}}
    content["parts"] = {"test": part}
    sha = "ab" * 32
    content["plan"] = {"made": "2026-03-02T14:00:00+00:00", "design_sha256": sha, "visible": None}
    page = page_of(write_experiment(tmp_path / "e", ("test",), experiment=content))
    words = section(page, "who-was-studied")
    assert "rows of the source's table 8,100 rows dropped: unreadable file 2 images" in words
    assert "kept 8,007 images" in words
    assert "test 412 58 310 0 300 412 7" in words
    assert "age 31 sex 0" in words
    words = section(page, "design")
    assert "written down on 2026-03-02T14:00:00+00:00, before anything was trained; SHA" in words
    assert sha in words
    assert "3 comparisons: 1 primary, 2 secondary." in words


def test_every_table_has_its_csv(page):
    saved = dict(re.findall(r'download="([^"]*)\.csv" href="data:text/csv[^,]*,([^"]*)"', page))
    assert {"all-comparisons", "metrics", "trials", "pairs-of-trainings"} <= set(saved)
    text = base64.b64decode(saved["all-comparisons"]).decode("utf-8-sig")
    table = pd.read_csv(io.StringIO(text))
    assert table["delta_auc"].tolist() == [c["delta_auc"] for c in comparisons()]
    assert table["n_trainings"].tolist() == [15] * 5
    assert table["verdict"].tolist() == [c["verdict"] for c in comparisons()]
    text = base64.b64decode(saved["pairs-of-trainings"]).decode("utf-8-sig")
    pairs = pd.read_csv(io.StringIO(text))
    assert len(pairs) == 5 * 15
    assert sorted(pairs["GAN seed"].unique()) == [0, 1, 2]


def test_what_is_zero_is_shown(tmp_path):
    content = experiment(("test",))
    content["config"] |= {"folds": 0, "classifier": {"dropout": 0.0, "frozen": 0}}
    content["gan"] = [gan_seed(0) | {"kimg": 0.016, "seconds": 0.0}]
    content["gan"][0]["generator"] |= {"seed": 0, "test_fold": 0, "penalty": 0.0, "ema": False}
    content["seconds"] = 0.0
    page = page_of(write_experiment(tmp_path / "e", ("test",), experiment=content))
    made = section(page, "how-it-was-made")
    for said in ("folds: 0", "dropout: 0.0", "frozen: 0", "whole experiment 0.0 s"):
        assert said in made
    images = section(page, "synthetic-images")
    for said in ("fold 0", "seed 0", "test_fold 0", "penalty 0.0", "ema no"):
        assert said in images
    assert "real images shown in training repeats count 16" in images
    assert "training time 0.0 s" in images
    assert "took 0.0 s" in words_of(page)
    real = section(page, "real-and-synthetic-lesions")
    assert "seed 0, after 16 real images shown" in real


def test_a_pool_from_elsewhere_has_no_seed(tmp_path):
    content = experiment(("test",))
    content["gan"] = [gan_seed(0) | {"seed": None, "kimg": None, "seconds": None, "run": "p/mine"}]
    page = page_of(write_experiment(tmp_path / "e", ("test",), experiment=content))
    assert "Synthetic. p/mine. KID" in section(page, "real-and-synthetic-lesions")
    assert "None" not in words_of(page)


def test_a_smoke_run_cannot_be_taken_for_a_result(tmp_path, page):
    content = experiment(("test",))
    content["config"]["smoke"] = True
    smoke = page_of(write_experiment(tmp_path / "e", ("test",), experiment=content))
    assert smoke.index("Smoke run.") < smoke.index('class="verdict"')
    assert "Smoke run." not in page


def test_inconclusive_is_explained_under_the_verdict(page):
    head = words_of(page[page.index('class="verdict"') : page.index("</header>")])
    assert "a gain of 0.018 AUC or a loss of 0.019 AUC is found in four of five such" in head
    assert head.index("Inconclusive: ") < head.index("Inconclusive means that")


def test_a_paper_finds_its_paragraphs_and_table(page):
    words = section(page, "for-a-paper")
    assert "The primary comparison was synthetic against real in AUC" in words
    assert "The labels are those of the source; this software did not check" in words
    assert r"\begin{tabular}" in words
    assert "CLAIM 2024 and TRIPOD+AI checklist" in words
    assert "funding and interests 44 18a, 18b – yours to write" in words


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
