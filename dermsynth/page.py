"""Self-contained HTML pages: strict templates, and pictures as `data:` URIs in the page itself."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

# one palette for all pages, as in page.css and the keys of the templates
INK, MUTED, FAINT, GRID = "#222222", "#636363", "#a9a9a9", "#eeeeee"
BENIGN, MALIGNANT = "#c9d2dc", "#2166ac"  # real and synthetic on the generator's card
OTHERS = ("#b8740f", "#2f8f6b", "#a3486f", "#6f5aa8", "#7d7a1f", "#3d9bb3")  # further lines
STYLE: dict[str, Any] = {  # of matplotlib
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
}
SIDE = 160  # px, of a picture at most: sharp on paper at the 20 mm it is shown at
WIDTH = 4.3  # inches at 96 px an inch: half the page, or a phone
FONTS = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"


def templates(folder: Path) -> jinja2.Environment:
    """The templates of a folder: everything is escaped, a name that is not given is an error.

    `{{ shared_style }}` is page.css, which the pages share.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    environment.globals["shared_style"] = Markup(style.rstrip())
    return environment


def embedded(kind: str, content: bytes) -> str:
    """A `data:` URI of bytes of a kind: jpeg, png, svg+xml."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def embedded_figure(figure: Figure) -> str:
    """A `data:` URI of a figure, as SVG in the page's fonts; the same bytes every time."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    # laid out with matplotlib's own wide font, shown in the page's: what fits here fits there
    svg = re.sub(r"'DejaVu Sans', [^;\"<]*sans-serif", FONTS, buffer.getvalue())
    return embedded("svg+xml", svg.encode())


def picture(image: np.ndarray) -> str:
    """uint8 [h, w, 3] RGB as a JPEG of at most SIDE px a side."""
    if (longest := max(image.shape[:2])) > SIDE:
        height, width = (max(1, round(side * SIDE / longest)) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return embedded_jpeg(image, 90)


def embedded_jpeg(image: np.ndarray, quality: int) -> str:
    """A `data:` URI of uint8 [h, w, 3] RGB; JPEG's quality is at most 100."""
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return embedded("jpeg", encoded.tobytes())
