"""The CSV of a table that is on a page, so that figures need not be typed off."""

import base64
import csv
import io
import re
from html.parser import HTMLParser

FIGURE = r"[+−-]?\d[\d,]*(?:\.\d+)?"
NUMBER = re.compile(FIGURE)
SPREAD = re.compile(rf"({FIGURE}) ± ({FIGURE})")
SPAN = re.compile(rf"({FIGURE}) \[({FIGURE}|–), ({FIGURE}|–)\]")  # a value with its interval
REACH = re.compile(rf"({FIGURE}) ({FIGURE}) to ({FIGURE})")  # the same
INTERVAL = ("", " low", " high")
BREAKS = ("br", "p", "div", "small", "dt", "dd")  # words on either side are two


class _Cells(HTMLParser):
    """Rows of a table as (text, columns that the cell spans)."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, int]]] = []
        self._text: list[str] | None = None
        self._wide = 1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self._text, self._wide = [], int(dict(attrs).get("colspan") or 1)
        elif self._text is not None and tag in BREAKS:
            self._text.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._text is not None:
            self.rows[-1].append((" ".join("".join(self._text).split()), self._wide))
            self._text = None

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)


def csv_of(table: str) -> str:
    """The CSV of a table's HTML, its head first.

    A row of one wide cell names those below it: it becomes their first column, `section`. A value
    with its interval or spread becomes several columns. Numbers have no separators, a missing one
    is empty, and columns of bars are left out.
    """
    parser = _Cells()
    parser.feed(table)
    if not parser.rows:
        return ""
    head, *body = parser.rows
    lines, section = [], ""
    sections = any(_names_others(row) for row in body)
    for row in body:
        if _names_others(row):
            section = row[0][0]
        else:
            lines.append([section] * sections + _laid_out(row))
    lines.insert(0, ["section"] * sections + _laid_out(head))
    width = max(map(len, lines))
    columns = [[line[at] if at < len(line) else "" for line in lines] for at in range(width)]
    written = [column for column in columns if any(column)]  # bars are drawn, not written
    split = [part for name, *cells in written for part in _split(name, cells)]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(zip(*split, strict=True))
    return out.getvalue()


def csv_uri(table: str) -> str:
    """A `data:` URI of the CSV of a table's HTML; with a byte order mark, which Excel asks for."""
    content = csv_of(table).encode("utf-8-sig")
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(content).decode()


def _names_others(row: list[tuple[str, int]]) -> bool:
    return len(row) == 1 and row[0][1] > 1


def _laid_out(row: list[tuple[str, int]]) -> list[str]:
    """Texts of a row, empty where a cell spans further columns."""
    return [text for words, wide in row for text in [words, *[""] * (wide - 1)]]


def _split(name: str, cells: list[str]) -> list[list[str]]:
    """A column with its name, or one each of value, low and high, or of value and spread."""
    for pattern, ends in ((SPAN, INTERVAL), (REACH, INTERVAL), (SPREAD, ("", " ±"))):
        found = [pattern.fullmatch(cell) for cell in cells]
        if any(found):
            parts = [
                match.groups() if match else (cell, *[""] * (len(ends) - 1))
                for match, cell in zip(found, cells, strict=True)
            ]
            columns = zip(*parts, strict=True)
            return [
                [name + end, *map(_plain, column)]
                for end, column in zip(ends, columns, strict=True)
            ]
    return [[name, *map(_plain, cells)]]


def _plain(cell: str) -> str:
    """A figure as programs read it; words that a spreadsheet would compute are quoted."""
    if NUMBER.fullmatch(cell):
        return cell.replace(",", "").replace("−", "-")
    if cell == "–":
        return ""
    return "'" + cell if cell[:1] in ("=", "+", "-", "@") else cell
