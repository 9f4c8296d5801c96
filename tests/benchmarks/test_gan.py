"""The table of architectures."""

from benchmarks.gan import KEPT, table


def cell(arch, **changes):
    return {"arch": arch, "minutes": 10.0, "images_per_second": 5.0, **dict.fromkeys(KEPT, 0.5)} | (
        changes
    )


def test_a_collapsed_generator_leaves_gaps_and_the_others_stay():
    cells = [cell("one", kid=0.3), cell("collapsed", memorisation=None, kid=0.9)]
    first, second = table(cells).splitlines()
    assert first.split()[2] == "one"
    assert "KID x1000   900.0" in second
    assert "nan" in table([cell("nothing", kid=None)])


def test_seeds_are_averaged():
    (line,) = table([cell("one", kid=0.1), cell("one", kid=0.3)]).splitlines()
    assert "2 seeds  KID x1000   200.0" in line
