"""The report's tables, for the screen and for a page of docs/."""

import re
import textwrap
from pathlib import Path
from typing import Any

from dermsynth.errors import UserError
from dermsynth.files import write_text

WIDTH = 66  # of the names of ways


def ceilings(found: dict[str, Any]) -> str:
    """What the device does at best, in a line."""
    flops = ", ".join(
        f"{name} {value / 1e9:,.0f} GFLOP/s" for name, value in found["flops_per_second"].items()
    )
    copied = found["bytes_per_second"] / 1e9
    return f"at best: products of {found['side']}: {flops}; copying {copied:,.1f} GB/s"


def tables(part: str, measured: dict[str, Any]) -> str:
    """A part's comparisons, limits and curves."""
    lines = []
    for table in measured.get("comparisons", []):
        lines += [f"\n{part}: {table['what']}, {table['unit']} a second (a processor second)"]
        for row in table["ways"]:
            cpu = f"({row['rate_cpu']:,.4g})" if "rate_cpu" in row else ""
            ratio = row.get("ours_times_as_fast")
            beside = "" if ratio is None else f"  {ratio:6.2f}"
            beside += f" ({row['ours_times_as_fast_cpu']:.2f})" if "rate_cpu" in row else ""
            kimg = row.get("kimg_per_minute")
            beside += "" if kimg is None else f"  {kimg:,.4g} kimg/min"
            lines.append(f"  {row['way']:{WIDTH}} {row['rate']:>9,.4g} {cpu:>9}{beside}")
    for row in measured.get("limits", []):
        lines.append(
            f"  {row['share_of_limit']:.0%} of the limit by {row['bound_by']}: {row['what']}\n"
            f"    {row['flops'] / 1e9:,.2f} GFLOP = {1e3 * row['seconds_by_flops']:,.2f} ms, "
            f"{row['bytes'] / 1e9:,.2f} GB = {1e3 * row['seconds_by_bytes']:,.2f} ms, "
            f"measured {1e3 * row['seconds']:,.2f} ms"
        )
    for row in measured.get("busy", []):
        lines.append(
            f"  the GPU works {row['busy_share']:.0%} of the time: {row['what']}, "
            f"{1e3 * row['busy_seconds']:,.2f} of {1e3 * row['seconds']:,.2f} ms"
        )
    for curve in measured.get("curves", []):
        lines.append(f"\n{part}: {curve['what']}, over {curve['over']}")
        for point in curve["points"]:
            words = [f"{name} {point[name]:g}" for name in point if point[name] is not None]
            lines.append("  " + ", ".join(words))
    return "\n".join(lines)


def markdown(report: dict[str, Any]) -> str:
    """A report of benchmarks.run as Markdown: machine, then a table each, then the limits."""
    machine, gpu = report["machine"], report["machine"]["gpu"]
    versions = ", ".join(f"{name} {report['versions'][name]}" for name in ("python", "torch"))
    lines = [
        _wrapped(f"`{report['command']}`"),
        "",
        _wrapped(
            f"{gpu or machine['cpu']}, {machine['cores']} cores ({', '.join(machine['flags'])}); "
            f"{versions}; commit {report['commit']}; load before {report['load_before']}, after "
            f"{report['load_after']}; {ceilings(report['ceilings'])}."
        ),
    ]
    for part, measured in report["parts"].items():
        for table in measured.get("comparisons", []):
            lines += ["", *_markdown_table(part, table)]
        if rows := measured.get("limits", []):
            lines += ["", "| a step | GFLOP = ms | GB = ms | measured, ms | of the limit |"]
            lines += ["|---|---|---|---|---|"]
        for row in rows:
            flops = f"{row['flops'] / 1e9:,.1f} = {_milliseconds(row['seconds_by_flops'])}"
            moved = f"{row['bytes'] / 1e9:,.2f} = {_milliseconds(row['seconds_by_bytes'])}"
            share = f"{row['share_of_limit']:.0%}, by {row['bound_by']}"
            took = _milliseconds(row["seconds"])
            lines.append(f"| {row['what']} | {flops} | {moved} | {took} | {share} |")
        if rows := measured.get("busy", []):
            lines += ["", "| a step | ms | of which the GPU works | share |", "|---|---|---|---|"]
        for row in rows:
            took, busy = _milliseconds(row["seconds"]), _milliseconds(row["busy_seconds"])
            lines.append(f"| {row['what']} | {took} | {busy} | {row['busy_share']:.0%} |")
        for curve in measured.get("curves", []):
            lines += ["", *_markdown_curve(part, curve)]
        lines += ["", *(f"- {_wrapped(note)}" for note in measured["notes"])]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 116, break_long_words=False, break_on_hyphens=False)


def _markdown_table(part: str, table: dict[str, Any]) -> list[str]:
    a_second = f"{table['unit']}/s"
    columns = [
        ("kimg_per_minute", "kimg/min", ",.4g"),
        ("rate_cpu", "a CPU second", ",.4g"),
        ("ours_times_as_fast", "ours is times as fast", ".2f"),
        ("ours_times_as_fast_cpu", "by CPU", ".2f"),
    ]
    columns = [each for each in columns if any(each[0] in row for row in table["ways"])]
    lines = [
        f"**{part}**: {table['what']}",
        "",
        f"| way | {a_second} | {' | '.join(title for _, title, _ in columns)} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for row in table["ways"]:
        cells = [row["way"], f"{row['rate']:,.4g}"]
        for name, _, form in columns:
            cells.append(format(row[name], form) if name in row else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _markdown_curve(part: str, curve: dict[str, Any]) -> list[str]:
    points = curve["points"]
    header = " | ".join(f"{point['at']:,}" for point in points)
    lines = [
        f"**{part}**: {curve['what']}",
        "",
        f"| {curve['over']} | {header} |",
        "|---" * (len(points) + 1) + "|",
    ]
    for name in ("seconds", "cpu_seconds", "peak_mib", "gpu_peak_mib"):
        values = [point.get(name) for point in points]
        if any(value is not None for value in values):
            cells = " | ".join("" if value is None else f"{value:,.4g}" for value in values)
            lines.append(f"| {name.replace('_', ' ')} | {cells} |")
    return lines


def insert(page: Path, device: str, text: str) -> None:
    """Put text between a page's marks `<!-- cpu -->` and `<!-- /cpu -->`.

    Raises UserError where the page or its marks are not there.
    """
    begin, end = f"<!-- {device} -->", f"<!-- /{device} -->"
    before = page.read_text(encoding="utf-8") if page.is_file() else ""
    head, found, rest = before.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise UserError(f"--page {page}: expected a file with the lines {begin} and {end}")
    write_text(page, f"{head}{begin}\n\n{text}\n\n{end}{tail}")
