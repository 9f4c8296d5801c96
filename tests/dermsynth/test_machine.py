"""What a result says of the machine and the packages that it was computed with."""

import os
import platform
from importlib.metadata import version

import pytest

from dermsynth.machine import cores, machine, versions


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone has it")
def test_cores_are_those_that_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    assert cores() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores() == machine()["cores"] == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_versions_are_those_installed_and_name_no_absent_package():
    assert versions("numpy", "no-such-package") == {
        "python": platform.python_version(),
        "numpy": version("numpy"),
    }
