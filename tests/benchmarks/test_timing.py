import time

import pytest
import torch

from benchmarks.speed import limits
from benchmarks.speed.place import union
from benchmarks.speed.timing import Times, Way, comparison, cpu_seconds, in_turn, ratio, run

CPU = torch.device("cpu")


def test_ways_take_turns_and_warm_ups_do_not_count():
    called = []
    ways = [Way(name, lambda name=name: called.append(name)) for name in "AB"]
    times = in_turn(ways, 2, CPU, warm_ups=1)
    assert "".join(called) == "ABABAB"
    assert [len(each.seconds) for each in times] == [2, 2]


def test_what_prepares_a_way_is_not_timed():
    way = Way("slow to begin", lambda: None, prepare=lambda: time.sleep(0.2))
    (times,) = in_turn([way], 1, CPU)
    assert times.seconds[0] < 0.1


def test_a_ratio_is_the_median_of_ratios_within_rounds():
    # the machine was ten times slower in the second round, for both
    assert ratio([2, 20, 2], [1, 10, 1]) == 2
    assert ratio([1, 10, 3], [2, 20, 2]) == 0.5


def test_a_comparison_has_rates_and_how_many_times_as_fast_ours_is():
    ours = Times("ours", True, [1.0, 2.0, 4.0], [2.0, 2.0, 2.0])
    script = Times("script", False, [4.0, 6.0, 16.0], [8.0, 8.0, 8.0])
    table = comparison("training", 100, "images", [ours, script])
    first, second = table["ways"]
    assert first["rate"] == 50
    assert first["ours_times_as_fast"] == 1
    assert second["rate"] == pytest.approx(100 / 6, rel=1e-3)
    assert second["ours_times_as_fast"] == 4  # of 4, 3 and 4
    assert second["ours_times_as_fast_cpu"] == 4
    assert second["rate_cpu"] == 12.5


def test_processor_seconds_include_children_that_run_and_that_have_ended():
    before = cpu_seconds()
    ended = run(["python3", "-c", "sum(range(6_000_000))"])
    assert ended.cpu_seconds > 0.02
    assert cpu_seconds() - before >= 0.9 * ended.cpu_seconds
    assert ended.peak_mib > 1


def test_a_command_that_fails_says_what_it_said():
    with pytest.raises(RuntimeError, match="no such thing"):
        run(["python3", "-c", "raise SystemExit('no such thing')"])


def test_flops_of_a_step_are_those_of_its_products():
    weight = torch.randn(16, 8, requires_grad=True)
    x = torch.randn(32, 16)
    work = limits.count(lambda: (x @ weight).sum().backward())
    assert work.flops == 2 * (2 * 32 * 16 * 8)  # forward, and the weight's gradient
    assert work.bytes >= 4 * (32 * 16 + 16 * 8 + 32 * 8)


def test_a_depthwise_convolution_is_not_counted_as_a_full_one():
    layer = torch.nn.Conv2d(32, 32, 3, padding=1, groups=32)
    x = torch.rand(2, 32, 8, 8, requires_grad=True)
    forward = 2 * 2 * 32 * 8 * 8 * 9
    assert limits.count(lambda: layer(x).sum().backward()).flops == 3 * forward


def test_the_share_of_the_limit_is_the_longer_of_two_least_times():
    best = limits.Ceilings(1024, {"fp32": 1e9}, 64, 1e9)
    row = limits.share("step", limits.Work(10**8, 4 * 10**8), [1.0, 0.8, 0.7], "fp32", best)
    assert row["seconds_by_flops"] == 0.1
    assert row["seconds_by_bytes"] == 0.4
    assert row["bound_by"] == "bytes"
    assert row["share_of_limit"] == 0.5
    assert row["share_of_flops"] == 0.125


def test_a_way_that_does_a_part_is_timed_as_if_it_did_all():
    ways = [Way("all", lambda: time.sleep(0.2)), Way("half", lambda: time.sleep(0.1), part=0.5)]
    all_of_it, half = in_turn(ways, 1, CPU, warm_ups=0)
    assert half.seconds[0] == pytest.approx(all_of_it.seconds[0], rel=0.2)


def test_spans_that_overlap_count_once():
    assert union([(0, 4), (2, 3), (3, 6), (10, 11)]) == 7
    assert union([]) == 0
