"""constraints.txt and requirements.lock are two forms of one list."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINE = re.compile(r"^([\w.-]+)==([\w.!+]+)(?: *; *(.+?))?(?: \\)?$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")


def pinned(name: str) -> dict[str, tuple[str, str]]:
    """Version and marker of each package, by its normal name."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [match.groups("") for line in lines if (match := LINE.match(line))]
    return {re.sub(r"[-_.]+", "-", n).lower(): (version, rest) for n, version, rest in found}


def test_constraints_and_lock_name_the_same_versions():
    constraints, lock = pinned("constraints.txt"), pinned("requirements.lock")
    assert len(constraints) > 100
    assert {name: version for name, (version, _) in constraints.items()} == {
        name: lock[name][0] for name in constraints
    }


def test_what_only_the_lock_names_is_for_some_systems_alone():
    constraints, lock = pinned("constraints.txt"), pinned("requirements.lock")
    for name in lock.keys() - constraints.keys():
        assert "sys_platform" in lock[name][1], name  # CUDA's libraries, Windows


def test_each_package_of_the_lock_has_hashes_and_no_address():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert line.startswith("#") or LINE.match(line) or HASH.match(line), line
        if LINE.match(line):
            assert HASH.match(following), line
