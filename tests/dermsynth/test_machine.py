"""What a result says of the machine and the packages that it was computed with."""

import os
import platform
from importlib.metadata import version

import pytest

from dermsynth import machine as module
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


@pytest.mark.parametrize(
    ("cpuinfo", "name", "flags"),
    [
        (
            "model name\t: EPYC\nflags\t\t: fpu avx2 avx512f avx512_bf16\n",
            "EPYC",
            "avx2 avx512f avx512_bf16",
        ),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", platform.machine(), "bf16"),
        ("model name\t: old\nflags\t\t: fpu sse2 not_avx2\n", "old", ""),
    ],
)
def test_flags_say_what_decides_the_arithmetic(tmp_path, monkeypatch, cpuinfo, name, flags):
    place = tmp_path / "cpuinfo"
    place.write_text(cpuinfo)
    monkeypatch.setattr(module, "Path", lambda _: place)
    assert (machine()["cpu"], machine()["flags"]) == (name, flags.split())
