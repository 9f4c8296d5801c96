"""The CSV of a table that is on a page, so that figures need not be typed off."""

import base64
import csv
import io
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser

FIGURE = r"[+−-]?\d[\d,]*(?:\.\d+)?"
NUMBER = re.compile(FIGURE)
SPREAD = re.compile(rf"({FIGURE}) ± ({FIGURE})")
PAIR = re.compile(rf"({FIGURE}|–) → ({FIGURE}|–)")
ENDS = re.compile(rf"\[({FIGURE}|–), ({FIGURE}|–)\]")  # an interval in a line of its own
SPAN = re.compile(rf"({FIGURE}) \[({FIGURE}|–), ({FIGURE}|–)\]")  # a value with its interval
REACH = re.compile(rf"({FIGURE}) ({FIGURE}) to ({FIGURE})")  # the same
INTERVAL = ("", " low", " high")
BREAKS = ("br", "p", "div", "small", "dt", "dd")  # words on either side are two


@dataclass(frozen=True)
class _Cell:
    lines: list[str]  # as `<br>` breaks them
    wide: int = 1  # columns that it spans
    names: tuple[str, ...] = ()  # of a head's `data-csv`: lines below it are columns of these names


class _Cells(HTMLParser):
    """Rows of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[_Cell]] = []
        self._text: list[str] | None = None
        self._cell = _Cell([])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            said = dict(attrs)
            names = tuple(filter(None, (said.get("data-csv") or "").split("|")))
            self._text, self._cell = [], _Cell([], int(said.get("colspan") or 1), names)
        elif self._text is not None and tag in BREAKS:
            self._text.append("\n" if tag == "br" else " ")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._text is not None:
            lines = [" ".join(line.split()) for line in "".join(self._text).split("\n")]
            self.rows[-1].append(replace(self._cell, lines=lines))
            self._text = None

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data.replace("\n", " "))


def csv_of(table: str) -> str:
    """The CSV of a table's HTML, its head first.

    A row of one wide cell names those below it: it becomes their first column, `section`. A value
    with its interval or spread becomes several columns, as do the lines of a column whose head
    names them: `<th data-csv="AUC of the arm|AUC of the reference">`. Numbers have no separators, a
    missing one is empty, and columns of bars are left out.
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
            section = " ".join(row[0].lines)
        else:
            lines.append([section] * sections + _laid_out(row, head))
    lines.insert(0, ["section"] * sections + _laid_out(head, head))
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


def _names_others(row: list[_Cell]) -> bool:
    return len(row) == 1 and row[0].wide > 1


def _laid_out(row: list[_Cell], head: list[_Cell]) -> list[str]:
    """Texts of a row, empty where a cell spans further columns; lines that `head` names, apart."""
    names = [one.names for cell in head for one in [cell, *[_Cell([])] * (cell.wide - 1)]]
    texts: list[str] = []
    at = 0
    for cell in row:
        stacked = names[at] if at < len(names) else ()
        lines = list(cell.names) or cell.lines if stacked else [" ".join(cell.lines)]
        texts += [*lines, *[""] * (max(len(stacked), cell.wide) - len(lines))]
        at += cell.wide
    return texts


def _split(name: str, cells: list[str]) -> list[list[str]]:
    """A column with its name, or one each of value, low and high, of value and spread, of pairs."""
    if " → " in name and all(PAIR.fullmatch(cell) for cell in cells):
        sides = zip(*(cell.split(" → ") for cell in (name, *cells)), strict=True)
        return [[one, *map(_plain, column)] for one, *column in sides]
    kinds = ((SPAN, INTERVAL), (REACH, INTERVAL), (ENDS, INTERVAL[1:]), (SPREAD, ("", " ±")))
    for pattern, ends in kinds:
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
