"""Pictures of a part: where the classifier is most wrong, and where its evidence lies."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classifier.evaluation import page_figures
from classifier.evaluation.grad_cam import grad_cam, overlay, scale_bar
from classifier.evaluation.parts import Part
from classifier.run_folder import KIND, MODEL, PAIR, WEIGHTS, open_fold_runs, open_networks
from classifier.trained import Trained, load_trained
from data.store import TargetMeaning
from dermsynth.errors import UserError
from dermsynth.manifest import Sealed
from dermsynth.page import picture

WORST = 12  # images of either class in the failure gallery
IN_CAM = 4  # images of each kind in the Grad-CAM grid
KINDS = ("hit", "miss", "false alarm")

Tiles = list[dict[str, Any]]  # `pictures` as data: URIs, `words` below them


@dataclass(frozen=True)
class Gallery:
    """What the page shows, or why there is nothing to show."""

    part: str
    missing: str | None  # why there are no pictures
    cam_missing: str | None = None  # why there is no Grad-CAM
    cam_fold: int | None = None  # whose model it shows, of a cross-validated run
    score_gap: float | None = None  # largest difference of the run's scores from the saved model's
    failures: dict[str, Tiles] = field(default_factory=dict)
    cam: dict[str, Tiles] = field(default_factory=dict)
    cells: tuple[int, int] | None = None  # of the Grad-CAM maps
    means_over: tuple[str, ...] = ()  # what scores are means over, so that no one model gave them

    @property
    def facts(self) -> dict[str, Any]:
        """What evaluation.json says of it."""
        names = ("part", "missing", "cam_missing", "cam_fold", "score_gap")
        return {name: getattr(self, name) for name in names}


def draw_gallery(
    run: Sealed, part: Part, views: int, folder: Path, meaning: TargetMeaning
) -> Gallery:
    """Tiles of the worst failures and of Grad-CAM; writes failures.png and gradcam.png to `folder`.

    Of a cross-validated run Grad-CAM shows its first fold's model, on images that are new to it; of
    two networks the first.
    `views`: those an image that the run's scores are means over; `meaning`: what targets are
    called.
    """
    gallery = Gallery(part.name, part.missing)
    if part.dataset is None or part.table is None:
        return replace(gallery, cam_missing=part.missing)
    rows = part.rows.assign(diagnosis=part.table["diagnosis"])
    means_over = [f"{views} views"] if views > 1 else []
    gallery = replace(gallery, failures=_draw_failures(part, rows, folder, meaning))
    if folds := open_fold_runs(run):
        number, run = next(iter(folds.items()))
        gallery = replace(gallery, cam_fold=number)
        if part.name == "oof":
            rows = rows[rows["fold"] == number]
        else:
            means_over.append(f"the models of {len(folds)} folds")
    if run.manifest.kind == PAIR:
        run = open_networks(run)[0]
        means_over.append("two networks, of which the heat maps show the first")
    gallery = replace(gallery, means_over=tuple(means_over))
    if run.manifest.kind != KIND:
        return replace(gallery, cam_missing=f"{run.path} holds no network")
    for name in (MODEL, WEIGHTS):
        if run.has(name):
            run.bytes(name)  # damage is no reason for a page without pictures: it stops here
    try:
        trained = load_trained(run)
    except UserError as error:
        return replace(gallery, cam_missing=str(error))
    return _draw_cam(gallery, trained, part, rows, folder)


def _draw_failures(
    part: Part, rows: pd.DataFrame, folder: Path, meaning: TargetMeaning
) -> dict[str, Tiles]:
    called = {"malignant": meaning.one, "benign": meaning.zero}
    tiles, sheet = {}, []
    for name, chosen in failures(rows).items():
        images, words = part.images(chosen.index.to_numpy()), captions(chosen)
        tiles[name] = _tiles([[image] for image in images], words)
        below = ["\n".join(lines) for lines in words]
        sheet.append((f"{called[name]}, most wrong first", images, below))
    page_figures.sheet(sheet, folder / "failures.png")
    return tiles


def _draw_cam(
    gallery: Gallery, trained: Trained, part: Part, rows: pd.DataFrame, folder: Path
) -> Gallery:
    """The gallery with Grad-CAM.

    Parameters
    ----------
    gallery : without
    trained : the model whose evidence is shown
    part, rows : the part, and those of its rows that are new to the model
    folder : of gradcam.png
    """
    chosen = cam_rows(rows)
    index = chosen.index.to_numpy()
    images = part.images(index)
    metadata = trained.metadata(part.dataset, part.places[index])
    maps = grad_cam(trained.model, trained.target, images, metadata)
    pairs = [[image, overlay(image, heat)] for image, heat in zip(images, maps.heat, strict=True)]
    words, kinds, sheet = captions(chosen), chosen["kind"].to_numpy(), []
    tiles: dict[str, Tiles] = {}
    for kind in KINDS:
        members = np.flatnonzero(kinds == kind)
        tiles[kind] = _tiles([pairs[at] for at in members], [words[at] for at in members])
        line = [image for at in members for image in pairs[at]]
        below = [text for at in members for text in ("\n".join(words[at]), "Grad-CAM")]
        sheet.append((kind, line, below))
    page_figures.sheet(sheet, folder / "gradcam.png", scale_bar())
    gap = None  # the scores are not those of this one model
    if not gallery.means_over:
        gap = float(np.abs(maps.score - chosen["score"].to_numpy()).max())
    return replace(gallery, cam=tiles, cells=maps.cells, score_gap=gap)


def _tiles(images: list[list[np.ndarray]], words: list[list[str]]) -> Tiles:
    return [
        {"pictures": [picture(image) for image in pictures], "words": lines}
        for pictures, lines in zip(images, words, strict=True)
    ]


# --- which images, and their captions ------------------------------------------------------------


def failures(part: pd.DataFrame, count: int = WORST) -> dict[str, pd.DataFrame]:
    """The most wrong rows: `malignant` by rising score, `benign` by falling score, at most `count`.

    `part` has `image_id, target, score`; equal scores go by image_id. The index is kept.
    """
    by_score = part.sort_values(["score", "image_id"])
    by_fall = part.sort_values(["score", "image_id"], ascending=[False, True])
    return {
        "malignant": by_score[by_score["target"] == 1].head(count),
        "benign": by_fall[by_fall["target"] == 0].head(count),
    }


def cam_rows(part: pd.DataFrame, count: int = IN_CAM) -> pd.DataFrame:
    """Rows for Grad-CAM with `kind`: the surest true malignant, the worst misses, false alarms.

    At most `count` of each; no row twice, where there are few malignant ones.
    """
    by_fall = part.sort_values(["score", "image_id"], ascending=[False, True])
    hits = by_fall[by_fall["target"] == 1].head(count)
    wrong = failures(part.drop(index=hits.index), count)
    rows_by_kind = zip(KINDS, (hits, wrong["malignant"], wrong["benign"]), strict=True)
    return pd.concat([rows.assign(kind=kind) for kind, rows in rows_by_kind])


def captions(rows: pd.DataFrame) -> list[list[str]]:
    """Three short lines below each picture: image_id, diagnosis where known, score."""
    return [
        [str(row.image_id), *_known(getattr(row, "diagnosis", None)), f"score {row.score:.3f}"]
        for row in rows.itertuples()
    ]


def _known(word: Any) -> list[str]:
    return [] if word is None or pd.isna(word) or word == "" else [str(word)]
