"""Finished experiments as folders, which the tests of the report share."""

import json
from html.parser import HTMLParser

import numpy as np
import pandas as pd
from comparison_rows import comparison
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from dermsynth.manifest import digest, seal
from experiments import numbers
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
        "expectations": [
            {"arm": "real", "test_set": "test", "trained_on": 0.1111, "expected": 0.139}
            | {"observed": 0.1408},
            {"arm": "synthetic", "test_set": "test", "trained_on": 0.3, "expected": 0.1367}
            | {"observed": 0.1408},
        ],
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
