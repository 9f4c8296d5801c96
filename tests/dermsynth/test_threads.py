"""How threads wait is said before torch is loaded, and only where the user has not said it."""

import os
import subprocess
import sys

import pytest

from dermsynth.threads import DECIDED_BY, WAITING

SAY = (
    "import os, sys, dermsynth; assert 'torch' not in sys.modules; print(*map(os.environ.get, {}))"
)


@pytest.mark.parametrize(
    "given", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}], ids=str
)
def test_the_users_word_counts(given: dict[str, str]):
    kept = {name: value for name, value in os.environ.items() if name not in DECIDED_BY}
    done = subprocess.run(
        [sys.executable, "-c", SAY.format(DECIDED_BY)],
        env=kept | given,
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = given or WAITING
    assert done.stdout.split() == [str(wanted.get(name)) for name in DECIDED_BY]
