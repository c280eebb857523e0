"""Calibrations beside others, and results that beat them: tries are spread, ceilings raised."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossbench.bench.predicting import calibrate as calibrating
from lossbench.bench.predicting.calibrate import PASSES, Stopwatch, calibrate
from lossbench.bench.predicting.ceilings import Ceilings, of_ceiling
from lossbench.bench.predicting.recalibrate import AGAIN, RunCeilings
from lossbench.bench.records.calibrations import SLACK, best_of_run, fastest


class Simulated:
    """A device on which a product, copy or launch takes as long as its work, but in bursts.

    Args:
        bursts: (begin, end) in seconds, in which everything takes 10 times as long.
    """

    def __init__(self, bursts):
        self.now, self._bursts = 0.0, bursts

    def seconds(self, watch, call, *arguments):
        work = sum(each.numel() ** 1.5 for each in arguments) or 1e5
        slow = any(begin <= self.now < end for begin, end in self._bursts)
        self.now += 0.03
        return work * 1e-9 * (10 if slow else 1)


@pytest.fixture
def simulated(monkeypatch):
    """A function that calibrates beside bursts, and says how long that took."""

    def run(*bursts):
        device = Simulated(bursts)
        monkeypatch.setattr(calibrating, "COPIED", {"cpu": range(8, 14, 2)})
        monkeypatch.setattr(calibrating, "SIDES", {"cpu": (8, 16)})
        monkeypatch.setattr(Stopwatch, "seconds", lambda *call: device.seconds(*call))
        return calibrate("cpu"), device.now

    return run


def test_a_burst_slows_some_tries_and_no_ceiling(simulated):
    """It lasts for a whole pass, whenever it begins."""
    quiet, took_s = simulated()
    one_pass_s = took_s / PASSES
    for begin in range(-5, 25):
        begin_s = begin / 20 * took_s
        assert simulated((begin_s, begin_s + one_pass_s))[0] == quiet
    assert simulated((0, took_s))[0] != quiet


@pytest.fixture
def clock(monkeypatch):
    """Calls that take 4, 1, 9, 2, 9, 2, ... ms, the first of which warms up; and a clock."""
    durations = itertools.chain([50, 4, 1], itertools.cycle([9, 2]))
    now = [0.0]

    def call():
        now[0] += next(durations) / 1e3

    monkeypatch.setattr(calibrating.time, "perf_counter", lambda: now[0])
    return call


def test_a_stopwatch_takes_the_shortest_call(clock):
    assert Stopwatch("cpu").seconds(clock) == pytest.approx(1e-3)


def test_in_a_job_a_stopwatch_takes_the_mean_of_a_try(clock):
    """4 + 1 + 9 + 2 + 9 + 2 + 9 are the first to take 30 ms."""
    assert Stopwatch("cpu", lambda: None).seconds(clock) == pytest.approx(36e-3 / 7)


CEILINGS = Ceilings({"float32": 100.0}, [(1000, 10.0), (100_000, 50.0)], 4.0)
rates = st.builds(
    Ceilings,
    st.fixed_dictionaries({"float32": st.floats(1, 1e6), "bfloat16": st.floats(1, 1e6)}),
    st.tuples(st.tuples(st.just(10), st.floats(1, 1e6)), st.tuples(st.just(20), st.floats(1, 9))),
    st.floats(0.1, 100),
)


@given(st.lists(rates, min_size=1, max_size=4))
def test_the_fastest_is_as_fast_as_any_in_all_and_no_faster(found):
    best = Ceilings.best(found)
    for name in ("float32", "bfloat16"):
        assert best.gemm_gflops[name] == max(each.gemm_gflops[name] for each in found)
    for place in (0, 1):
        assert best.copy_gb_per_s[place] == max(each.copy_gb_per_s[place] for each in found)
    assert best.launch_us == min(each.launch_us for each in found)


def test_what_only_one_calibration_has_is_kept():
    link = {"link_us": 5.0, "link_gb_per_s": {"all_gather": 1.0, "all_reduce": 1.0}}
    first = {**CEILINGS.describe(), **link}
    other = Ceilings({"float16": 7.0}, [(10, 3.0)], 9.0).describe()
    best = fastest([first, other])
    assert best["gemm_gflops"] == {"float32": 100.0, "float16": 7.0}
    assert best["copy_gb_per_s"] == [[10, 3.0], [1000, 10.0], [100_000, 50.0]]
    assert {name: best[name] for name in link} == link


def of_product(ms):
    """A record of 10^9 multiply-adds, and what it says by other ceilings."""

    def told(ceilings):
        return {"ceiling_ms": ceilings.compute_ms(10**9, "float32")}

    return {"status": "ok", "median_ms": ms, **told(CEILINGS)}, told


def times_faster(factor):
    return Ceilings({"float32": 100.0 * factor}, [(1000, 10.0)], 4.0)


def run_of(*found):
    """Ceilings of a run, in which calibrations find one after the other."""
    made = []
    left = iter(found)

    def measure():
        made.append(next(left))
        return made[-1]

    return RunCeilings({"calibration": CEILINGS.describe()}, [], measure), made


def test_a_result_below_the_ceilings_calibrates_nothing():
    ceilings, made = run_of()
    record, told = of_product(25.0)
    assert ceilings.judge(record, told) == {"fraction_of_ceiling": 0.8, "ceiling_raised": 0.0}
    assert ceilings.best == CEILINGS
    assert not made


def test_a_result_that_beats_a_disturbed_calibration_is_held_against_another():
    """The device does 200 GFLOP/s; beside a burst it was said to do 100."""
    ceilings, made = run_of(times_faster(2))
    record, told = of_product(12.5)
    found = ceilings.judge(record, told)
    assert found["ceiling_ms"] == pytest.approx(10)
    assert found["fraction_of_ceiling"] == pytest.approx(0.8)
    assert found["ceiling_raised"] == 0
    assert found["calibration"]["gemm_gflops"] == {"float32": 200.0}
    assert found["calibration"]["copy_gb_per_s"] == [[1000, 10.0], [100_000, 50.0]]
    # the next is held against the better ones at once, though it was begun with those before
    later = ceilings.judge(*of_product(16.0))
    assert later["ceiling_ms"] == pytest.approx(10)
    assert "calibration" not in later
    assert len(made) == 1


def test_a_result_that_beats_all_calibrations_raises_the_ceiling_to_it():
    ceilings, made = run_of(times_faster(0.5), times_faster(1.01))
    record, told = of_product(20 / 1.1)
    found = ceilings.judge(record, told)
    assert found["fraction_of_ceiling"] == 1
    assert found["ceiling_raised"] == pytest.approx(0.1)
    assert "status" not in found
    assert Ceilings.of(found["calibration"]) == CEILINGS  # the second was slower
    assert len(made) == 1


def test_a_session_calibrates_again_a_few_times():
    ceilings, made = run_of(*[times_faster(1.0)] * (AGAIN + 1))
    for _ in range(AGAIN + 2):
        found = ceilings.judge(*of_product(19.0))
        assert found["fraction_of_ceiling"] == 1
    assert len(made) == AGAIN


def test_what_no_calibration_allows_is_invalid():
    ceilings, _ = run_of(times_faster(1.1))
    record, told = of_product(20 / 1.1 / (SLACK + 1.01))
    found = ceilings.judge(record, told)
    assert found["status"] == "invalid"
    assert "faster than the 18.2 ms" in found["reason"]
    assert "fraction_of_ceiling" not in found


def test_what_failed_or_was_not_calibrated_calibrates_nothing():
    ceilings, made = run_of()
    record, told = of_product(1.0)
    assert ceilings.judge({**record, "status": "oom"}, told) == {}
    assert RunCeilings({}, [], lambda: made.append(1)).judge({"status": "ok"}, told) == {}
    assert not made


def test_a_later_session_begins_with_the_best_ceilings_of_the_file():
    records = [{"calibration": times_faster(2).describe()}, {"calibration": None}, {}]
    header = {"calibration": CEILINGS.describe()}
    assert RunCeilings(header, records, lambda: None).best.gemm_gflops == {"float32": 200.0}
    assert best_of_run(header, [])["gemm_gflops"] == {"float32": 100.0}
    assert RunCeilings({}, [], lambda: None).best is None


@given(st.floats(1e-3, 1e3), st.sampled_from(["mfu", "fraction_of_ceiling"]))
def test_no_share_is_more_than_all(share, name):
    record = {"status": "ok", "reason": ""}
    record |= {"mfu": share} if name == "mfu" else {"ceiling_ms": share, "median_ms": 1.0}
    found = of_ceiling(record)
    if share > 1 + SLACK:
        assert found.get(name) is None
        assert found["reason"]
        assert (found.get("status") == "invalid") == (name != "mfu")  # its rate is right
    else:
        assert found[name] == min(share, 1)
        assert 1 + found["ceiling_raised"] == pytest.approx(max(share, 1))
