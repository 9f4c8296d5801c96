"""Self-contained HTML pages: strict templates, and pictures as `data:` URIs in the page itself."""

import base64
import hashlib
import io
import re
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from dermsynth.page_tables import csv_uri

# one palette for all pages, as in page.css; told apart by people who see no red or no green
INK, MUTED, FAINT, GRID = "#222222", "#636363", "#a9a9a9", "#eeeeee"
BENIGN, MALIGNANT = "#c9d2dc", "#2166ac"  # real and synthetic on the generator's card
OTHERS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d1c")  # Okabe and Ito 2008
ON_PALE, ON_DEEP = "#222223", "#fefefe"  # words on a coloured map, which is the same in the dark
VARIABLES = {  # a figure's colours that follow the page's
    **{INK: "ink", MUTED: "muted", FAINT: "faint", GRID: "grid", "#4d4d4d": "reference"},
    **{BENIGN: "pale", MALIGNANT: "blue", "#ffffff": "paper", "#000000": "ink"},
}
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

    They extend base.html.j2 and use macros.html.j2, which lie here; `{{ shared_style }}` is
    page.css.
    """
    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, here]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style = (here / "page.css").read_text(encoding="utf-8")
    environment.globals |= {
        "shared_style": Markup(style.rstrip()),
        "contents": contents,
        "csv": lambda body: Markup(csv_uri(body)),
    }
    environment.filters |= {"slug": slug, "word": word}
    return environment


def slug(title: str) -> str:
    """A title as an anchor or a file's name: `what-was-left-out`."""
    return re.sub(r"[^\w.]+", "-", title.lower()).strip("-.") or "untitled"


def word(value: Any) -> str:
    """A single value in words: an en dash where there is none, `yes` and `no`, 0 as 0."""
    if value is None:
        return "–"
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def contents(body: str) -> Markup:
    """The list of contents: a link to every heading that `heading` of macros.html.j2 made."""
    found = re.findall(r'<h2 id="([^"]*)"><a [^>]*>(.*?)</a></h2>', body)
    if len(found) < 2:
        return Markup("")
    lines = "\n".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title in found)
    return Markup(f'<nav class="contents" aria-label="contents"><ul>\n{lines}\n</ul></nav>')


def embedded(kind: str, content: bytes) -> str:
    """A `data:` URI of bytes of a kind: jpeg, png, svg+xml."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode()


def embedded_figure(figure: Figure) -> str:
    """A `data:` URI of a figure, as SVG in the page's fonts; the same bytes every time."""
    return embedded("svg+xml", _svg(figure).encode())


def inline_figure(figure: Figure) -> Markup:
    """A figure as `<svg>` in the page's fonts and colours, dark ones too; the same every time.

    Alone, as a file, it has the light colours.
    """
    svg = _svg(figure)
    svg = svg[svg.index("<svg") :].rstrip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = svg.replace("<svg ", '<svg stroke-linejoin="round" ', 1)  # was in the style
    mark = hashlib.sha256(svg.encode()).hexdigest()[:8]  # several figures lie in one page
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>f{mark}-", svg)
    colours = rf"((?:fill|stroke): )({'|'.join(VARIABLES)})\b"
    return Markup(re.sub(colours, _variable, svg))


def _variable(found: re.Match[str]) -> str:
    return f"{found[1]}var(--{VARIABLES[found[2]]}, {found[2]})"


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    # laid out with matplotlib's own wide font, shown in the page's: what fits here fits there
    return re.sub(r"'DejaVu Sans', [^;\"<]*sans-serif", FONTS, buffer.getvalue())


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
