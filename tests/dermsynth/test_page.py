"""What every page is made of: contents, tables with their CSV, figures in the page's colours."""

import base64
import csv
import io
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from dermsynth.page import MALIGNANT, contents, inline_figure, slug, templates, word
from dermsynth.page_tables import csv_of, csv_uri

PAGE = """{% extends "base.html.j2" %}
{% import "macros.html.j2" as ui %}
{% block title %}{{ name }}{% endblock %}
{% block header %}<h1>{{ name }}</h1>{% endblock %}
{% block content %}
{{ ui.heading("What & was left out") }}
{% call ui.table("parts") %}<tr><th>part</th></tr><tr><td>{{ name }}</td></tr>{% endcall %}
{{ ui.heading("Options") }}
{% call ui.foldout("All") %}{{ ui.tree(options) }}{% endcall %}
{% endblock %}
"""


def rows(table: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(csv_of(table))))


def test_a_page_has_contents_foldouts_and_escapes_names(tmp_path: Path) -> None:
    (tmp_path / "t.html.j2").write_text(PAGE)
    options = {"fold": 0, "seed": 0, "cutmix": 0.0, "resume": False, "pool": None, "many": [0] * 14}
    page = templates(tmp_path).get_template("t.html.j2").render(name="a<b>", options=options)
    assert "<b>" not in page
    assert '<a href="#what-was-left-out">What &amp; was left out</a></li>' in page
    assert page.index('class="contents"') < page.index('<h2 id="what-was-left-out">')
    assert "<details" in page
    shown = dict(re.findall(r"<dt>(\w+)</dt><dd>\s*(.*?)\s*</dd>", page))
    assert shown == {
        **{"fold": "0", "seed": "0", "cutmix": "0.0", "resume": "no", "pool": "–"},
        "many": ", ".join("0" * 12) + " and 2 more",
    }
    content = re.search(r'download="parts.csv" href="data:text/csv;[^,]*,([^"]*)"', page)
    assert content is not None
    assert base64.b64decode(content[1]).decode("utf-8-sig") == "part\na<b>\n"


def test_a_page_may_load_nothing(tmp_path: Path) -> None:
    (tmp_path / "t.html.j2").write_text(PAGE)
    page = templates(tmp_path).get_template("t.html.j2").render(name="a", options={})
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)


def test_the_csv_of_a_table_has_figures_that_programs_read() -> None:
    table = """<thead><tr><th>part</th><th>AUC<br>of all</th><th>n</th><th>KID</th></tr></thead>
    <tr class="head"><td colspan="4">age</td></tr>
    <tr><td>val</td><td><b>0.873</b> <small>[0.850, 0.890]</small></td><td>7,470</td><td>3 ± 1</td>
    <tr><td>test &amp; all</td><td>–</td><td>−3</td><td>–</td></tr>"""
    assert rows(table) == [
        ["section", "part", "AUC of all", "AUC of all low", "AUC of all high", "n", "KID", "KID ±"],
        ["age", "val", "0.873", "0.850", "0.890", "7470", "3", "1"],
        ["age", "test & all", "", "", "", "-3", "", ""],
    ]


def test_the_other_way_to_write_an_interval() -> None:
    cell = "<td>−0.31<small>−0.50 to +0.10</small></td>"
    assert rows(f"<tr><th>a</th></tr><tr>{cell}</tr>") == [
        ["a", "a low", "a high"],
        ["-0.31", "-0.50", "+0.10"],
    ]


def test_words_that_a_spreadsheet_would_compute_are_quoted() -> None:
    assert rows("<tr><th>a</th></tr><tr><td>=1+1</td></tr><tr><td>-1.5</td></tr>") == [
        ["a"],
        ["'=1+1"],
        ["-1.5"],
    ]


def test_lines_of_a_cell_are_columns_where_the_head_names_them() -> None:
    table = (
        '<tr><th data-csv="arm|reference">pair</th><th data-csv="gain|interval|a → b">gain</th>'
        "<th>n<br>left</th></tr>"
        "<tr><td>x\n y<br><small>real</small></td>"
        "<td>+0.029<br><small>[−0.201, +0.259]<br>0.149 → 0.173</small></td>"
        "<td>1,200<br>3</td></tr>"
        "<tr><td>z<br>real</td><td>–<br><small>–<br>– → –</small></td><td>4</td></tr>"
    )
    assert rows(table) == [
        ["arm", "reference", "gain", "interval low", "interval high", "a", "b", "n left"],
        ["x y", "real", "+0.029", "-0.201", "+0.259", "0.149", "0.173", "1,200 3"],
        ["z", "real", "", "", "", "", "", "4"],
    ]


def test_a_table_without_rows_is_an_empty_csv() -> None:
    assert csv_of("") == ""
    assert csv_uri("").startswith("data:text/csv")


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.0, "0.0"), (1, "1"), (True, "yes"), (False, "no"), (None, "–")],
)
def test_no_value_vanishes(value: object, words: str) -> None:
    assert word(value) == words


def test_figures_follow_the_colours_of_the_page_and_stand_alone() -> None:
    figures = []
    for height in (0.5, 1):
        figure = Figure(figsize=(2, 2))
        axes = figure.subplots()
        axes.plot([0, height], [0, 1], color=MALIGNANT)
        axes.set_title("<fill> & co")
        figures.append(str(inline_figure(figure)))
    assert f"stroke: var(--blue, {MALIGNANT})" in figures[0]
    assert "<style" not in figures[0]  # would style the whole page
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in figures]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', figures[0])) <= ids[0]
    assert "<fill>" not in figures[0]


def test_one_section_needs_no_contents() -> None:
    assert contents('<h2 id="a"><a href="#a">A</a></h2>') == ""


def test_slugs_are_names_of_files() -> None:
    assert slug("Does it copy? / 1.5") == "does-it-copy-1.5"
    assert slug("../..") == "untitled"
