import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.provenance import provenance
from benchmarks.run import PARTS, Options, main, measure
from benchmarks.speed import figure, show
from benchmarks.speed.place import LATER
from dermsynth.errors import UserError

ROOT = Path(__file__).parents[2]
TABLE = {
    "what": "training",
    "amount": 100,
    "unit": "images",
    "ways": [
        {"way": "ours", "ours": True, "rate": 50.0, "rate_cpu": 25.0, "ours_times_as_fast": 1.0,
         "ours_times_as_fast_cpu": 1.0, "seconds": [2.0], "cpu_seconds": [4.0]},
        {"way": "script", "ours": False, "rate": 10.0, "rate_cpu": 5.0, "ours_times_as_fast": 5.0,
         "ours_times_as_fast_cpu": 5.0, "seconds": [10.0], "cpu_seconds": [20.0]},
    ],
}  # fmt: skip
LIMIT = {
    "what": "a step", "precision": "fp32", "flops": 10**9, "bytes": 10**9, "seconds": 1.0,
    "seconds_by_flops": 0.5, "seconds_by_bytes": 0.1, "bound_by": "flops",
    "share_of_limit": 0.5, "share_of_flops": 0.5,
}  # fmt: skip
CURVE = {
    "what": "a step",
    "over": "side in pixels",
    "points": [{"at": size, "seconds": 1.0, "cpu_seconds": 2.0} for size in (64, 128)],
}
PART = {"comparisons": [TABLE], "limits": [LIMIT], "curves": [CURVE], "notes": []}


def check_table(table):
    assert {"what", "amount", "unit", "ways"} <= set(table)
    assert any(way["ours"] for way in table["ways"])
    for way in table["ways"]:
        assert way["rate"] > 0
        assert way["ours_times_as_fast"] > 0
        assert len(way["seconds"]) >= 1


def check_report(report, parts):
    assert {"command", "commit", "machine", "versions", "ceilings", "parts"} <= set(report)
    assert {"cpu", "flags", "cores", "gpu", "memory_gib"} <= set(report["machine"])
    assert report["ceilings"]["flops_per_second"]["fp32"] > 0
    assert set(report["parts"]) == set(parts)
    for part in report["parts"].values():
        assert part["comparisons"]
        for table in part["comparisons"]:
            check_table(table)
        for curve in part["curves"]:
            assert all(point["seconds"] > 0 for point in curve["points"])
        for row in part.get("limits", []):
            least = max(row["seconds_by_flops"], row["seconds_by_bytes"])
            assert row["share_of_limit"] == pytest.approx(least / row["seconds"], rel=0.01)


def test_a_table_says_rates_ratios_and_the_arithmetic_of_the_limit():
    text = show.tables("gan", PART)
    assert "5.00 (5.00)" in text
    assert "50% of the limit by flops" in text
    assert "1.00 GFLOP = 500.00 ms, 1.00 GB = 100.00 ms, measured 1,000.00 ms" in text


def test_tables_go_between_the_marks_of_a_page(tmp_path):
    page = tmp_path / "speed.md"
    page.write_text("# Speed\n\n<!-- cpu -->\nold\n<!-- /cpu -->\n\nThe end.\n")
    machine = {"cpu": "a processor", "cores": 2, "gpu": None, "flags": ["avx2"]}
    best = {"side": 64, "flops_per_second": {"fp32": 1e11}, "bytes_per_second": 1e10}
    report = {
        "command": "python -m benchmarks.run", "commit": "abc", "machine": machine,
        "versions": {"python": "3", "torch": "2"}, "load_before": 0.1, "load_after": 0.2,
        "ceilings": best, "parts": {"gan": PART},
    }  # fmt: skip
    show.insert(page, "cpu", show.markdown(report))
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("# Speed")
    assert text.endswith("The end.\n")
    assert "| script | 10 | 5 | 5.00 | 5.00 |" in text
    assert "| a step | 1.0 = 500 | 1.00 = 100 | 1,000 | 50%, by flops |" in text
    with pytest.raises(UserError, match="/cuda"):
        show.insert(page, "cuda", "")


def test_a_figure_is_drawn_of_tables_and_curves(tmp_path):
    machine = {"cpu": "a processor", "cores": 2, "gpu": None}
    report = {"machine": machine, "commit": "abc", "parts": {"gan": PART}}
    figure.draw(report, tmp_path / "pictures" / "speed.png")
    assert (tmp_path / "pictures" / "speed.png").stat().st_size > 1000


def test_a_part_that_fails_leaves_the_others_and_is_said(tmp_path, monkeypatch):
    order = []

    def fine(place):
        order.append("first")
        yield {"comparisons": [TABLE]}
        yield LATER
        order.append("later")
        yield {"curves": [CURVE]}

    def broken(place):
        yield {"comparisons": [TABLE]}
        order.append("broken")
        raise ValueError("no such thing")

    monkeypatch.setattr("benchmarks.speed.data.measure", fine)
    monkeypatch.setattr("benchmarks.speed.statistics.measure", broken)
    out = tmp_path / "speed.json"
    with pytest.raises(RuntimeError, match="statistics was cut short: no such thing"):
        measure(Options(("data", "statistics"), quick=True, out=out))
    assert order == ["first", "broken", "later"]  # what can wait waits for the others
    parts = json.loads(out.read_text())["parts"]
    assert parts["data"] == {"comparisons": [TABLE], "curves": [CURVE], "notes": []}
    assert parts["statistics"]["comparisons"] == [TABLE]
    assert "no such thing" in parts["statistics"]["notes"][0]


def test_a_report_of_an_earlier_run_goes_into_a_page(tmp_path):
    page, earlier = tmp_path / "speed.md", tmp_path / "speed.json"
    page.write_text("<!-- cuda -->\n<!-- /cuda -->\n")
    machine = {"cpu": "a processor", "cores": 2, "gpu": "a card", "flags": []}
    busy = {"what": "b3", "seconds": 0.004, "busy_seconds": 0.003, "busy_share": 0.75}
    table = TABLE | {"ways": [row | {"kimg_per_minute": 3.0} for row in TABLE["ways"]]}
    report = {
        "command": "python -m benchmarks.run", "commit": "abc", "machine": machine,
        "versions": {"python": "3", "torch": "2"}, "load_before": 0.1, "load_after": 0.2,
        "ceilings": {"side": 64, "flops_per_second": {"fp32": 1e11}, "bytes_per_second": 1e10},
        "parts": {"gan": PART | {"busy": [busy], "comparisons": [table]}},
        "options": {"device": "cuda"},
    }  # fmt: skip
    earlier.write_text(json.dumps(report))
    main(Options(page=page, report=earlier))
    text = page.read_text()
    assert "| way | images/s | kimg/min | a CPU second |" in text
    assert "| script | 10 | 3 | 5 | 5.00 | 5.00 |" in text
    assert "| b3 | 4 | 3 | 75% |" in text
    earlier.write_text("{}")
    with pytest.raises(UserError, match="--report"):
        main(Options(page=page, report=earlier))


def test_provenance_names_commit_flags_and_gpu():
    found = provenance("benchmarks.run", "torch")
    assert found["machine"].keys() >= {"flags", "gpu", "cores"}
    assert found["commit"] is None or len(found["commit"].rstrip("+")) == 12


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_each_part_measures_at_the_smallest_sizes(part, tmp_path):
    out = tmp_path / "speed.json"
    command = [sys.executable, "-m", "benchmarks.run", part, "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    check_report(json.loads(out.read_text()), [part])
    assert f"{part}: " in done.stdout


@pytest.mark.slow
def test_threads_measures_every_stage(tmp_path):
    out = tmp_path / "threads.json"
    sizes = ["--rounds", "1", "--seconds", "0.1", "--size", "32"]
    command = [sys.executable, "-m", "benchmarks.threads", *sizes, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert len(found["sharing"]) == 5
    assert all(each["apart_times_together"] > 0 for each in found["sharing"].values())


def test_no_such_part_is_bad_input():
    command = [sys.executable, "-m", "benchmarks.run", "gans"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 2
