"""Counts of the fault harness: shown at the end, and written to FAULTS_JSON=FILE."""

import json
import os
from pathlib import Path

import pytest
from commands import make_inputs
from fault_harness import TABLE, Table, preload


@pytest.fixture
def table() -> Table:
    return TABLE


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with what the commands read."""
    preload()
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder


def pytest_sessionfinish() -> None:
    if (target := os.environ.get("FAULTS_JSON")) and TABLE.counts:
        before = json.loads(Path(target).read_text()) if Path(target).exists() else {}
        counts = {fault: dict(outcomes) for fault, outcomes in TABLE.counts.items()}
        Path(target).write_text(json.dumps(before | counts, indent=1) + "\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TABLE.counts:
        terminalreporter.section("faults injected")
        for fault, outcomes in TABLE.counts.items():
            terminalreporter.line(
                f"{fault:<60} " + ", ".join(f"{n} {k}" for k, n in outcomes.items())
            )
