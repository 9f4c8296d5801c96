"""Small folders in the layout of HAM10000, filled with images that nobody could confuse."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data.prepare import PrepareOptions, prepare
from dermsynth.errors import UserError
from dermsynth.options import replace

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def texture(seed: int, width: int = 80, height: int = 60) -> np.ndarray:
    """uint8 [height, width, 3] RGB: smooth and fine noise, different for every seed."""
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 128, np.float32)
    for cells in (4, 12, 30):
        grid = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        total += 25 * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total, 0, 255).astype(np.uint8)


def write_ham(
    root: Path, lesions: int = 24, images_each: int = 2, malignant: int = 8
) -> pd.DataFrame:
    """Images in two part folders and the CSV; the first `malignant` lesions are melanoma."""
    rows = []
    for lesion in range(lesions):
        for view in range(images_each):
            number = lesion * images_each + view
            part = root / f"HAM10000_images_part_{1 + number % 2}"
            part.mkdir(parents=True, exist_ok=True)
            name = f"ISIC_{number:07d}"
            Image.fromarray(texture(number)).save(part / f"{name}.jpg", quality=90)
            diagnosis = "mel" if lesion < malignant else ("nv", "bkl")[lesion % 2]
            site = ("back", "unknown")[number % 2]
            rows.append([f"HAM_{lesion:07d}", name, diagnosis, "histo", 40 + lesion, "male", site])
    columns = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(root / "HAM10000_metadata.csv", index=False)
    return table


@pytest.fixture
def ham(tmp_path: Path) -> Path:
    root = tmp_path / "ham"
    write_ham(root)
    return root


@pytest.fixture
def edit_csv(ham: Path) -> Callable[[Callable[[pd.DataFrame], pd.DataFrame]], None]:
    """Rewrite the CSV of `ham` through a function of its table (all cells are words)."""

    def edit(change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        path = ham / "HAM10000_metadata.csv"
        change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)

    return edit


@pytest.fixture(scope="session")
def real_ham() -> Path:
    root = SHARED / "ham10000"
    if not (root / "HAM10000_metadata.csv").exists():
        pytest.skip(f"HAM10000 is not at {root}")
    return root


@pytest.fixture
def make_texture() -> Callable[..., np.ndarray]:
    return texture


@pytest.fixture
def options(ham: Path, tmp_path: Path) -> PrepareOptions:
    """To prepare `ham`."""
    return replace(
        PrepareOptions(),
        source="ham10000",
        root=(ham,),
        out=tmp_path / "out" / "d",
        size=64,
        folds=3,
    )


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of five images from some other tool."""
    root = tmp_path / "foreign" / "sub"
    root.mkdir(parents=True)
    for k in range(5):
        Image.fromarray(texture(k)).save(root / f"{k}.png")
    return root.parent


@pytest.fixture
def refused() -> Callable[[PrepareOptions, str], str]:
    """Returns the UserError's text; nothing beside --out may have come or gone."""

    def refuse(options: PrepareOptions, expected: str) -> str:
        folder = options.out.parent
        before = sorted(folder.rglob("*")) if folder.exists() else []
        with pytest.raises(UserError, match=expected) as caught:
            prepare(options)
        assert (sorted(folder.rglob("*")) if folder.exists() else []) == before
        return str(caught.value)

    return refuse
