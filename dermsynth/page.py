"""Self-contained HTML pages: strict templates, and pictures as `data:` URIs in the page itself."""

import base64
import io
import re
from pathlib import Path

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

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
