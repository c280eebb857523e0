"""What was taken from a process: by a made-up /proc, made-up clocks, and arithmetic."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossbench.bench.measuring import disturbance
from lossbench.bench.measuring.disturbance import (
    MOSTLY,
    STALLED,
    TAKEN,
    Stretch,
    Watch,
    beside,
    count_disturbed,
    describe,
    is_mostly,
    severity,
)

seconds = st.floats(1e-6, 1e5)
shares = st.floats(0, 10)


class Machine:
    """Clocks and threads that do what a test says."""

    def __init__(self, folder):
        self._folder = folder
        self.now = self.cpu = 0.0

    def threads(self, **waited_ns):
        """These threads are there, and have waited for so long since they began."""
        for task in self._folder.iterdir():
            if task.name not in waited_ns:
                (task / "schedstat").unlink()
                task.rmdir()
        for name, ns in waited_ns.items():
            (self._folder / name).mkdir(exist_ok=True)
            (self._folder / name / "schedstat").write_text(f"77 {ns} 5\n")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    made = Machine(tmp_path)
    monkeypatch.setattr(disturbance, "_TASKS", tmp_path)
    monkeypatch.setattr(disturbance.time, "perf_counter", lambda: made.now)
    monkeypatch.setattr(disturbance.time, "process_time", lambda: made.cpu)
    return made


def test_a_stretch_is_what_the_clocks_and_all_threads_say(machine):
    machine.threads(t1=10**9, t2=5 * 10**8)
    watch = Watch()
    machine.now, machine.cpu = 4.0, 6.0
    machine.threads(t1=3 * 10**9, t2=10**9)
    found = watch.stop()
    assert (found.wall_s, found.cpu_s, found.waited_s) == (4.0, 6.0, 2.5)
    assert found.cpu_share == 1.5
    assert found.taken == 2.5 / 4.0


def test_threads_that_begin_count_in_full_and_those_that_end_take_nothing_off(machine):
    machine.threads(t1=0, old=10**10)
    watch = Watch()
    machine.now = machine.cpu = 1.0
    machine.threads(t1=10**8, new=2 * 10**8)
    assert watch.stop().waited_s == pytest.approx(0.3)


def test_a_thread_that_ends_while_it_is_looked_at_is_left_out(machine, tmp_path):
    machine.threads(t1=0)
    (tmp_path / "gone").mkdir()  # without its file
    watch = Watch()
    machine.now = machine.cpu = 1.0
    assert watch.stop().waited_s == 0.0


def test_a_system_without_proc_does_not_say_what_was_waited(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(disturbance, "_TASKS", tmp_path / "missing")
    watch = Watch()
    machine.now, machine.cpu = 10.0, 4.0
    found = watch.stop()
    assert found.waited_s is None
    assert found.taken == pytest.approx(0.6)  # no thread ran


def test_this_system_counts_what_a_process_did():
    watch = Watch()
    while watch.stop().cpu_s < 0.01:
        pass
    found = watch.stop()
    assert found.wall_s > 0
    assert found.switches >= 0
    assert found.waited_s is None or found.waited_s >= 0


@settings(deadline=None)
@given(seconds, shares, shares)
def test_one_thread_that_ran_all_the_time_lost_nothing_and_waits_are_what_it_lost(
    wall_s, waited, ran
):
    assert Stretch(wall_s, wall_s, 0.0, 0).taken == 0.0
    found = Stretch(wall_s, ran * wall_s, waited * wall_s, 0).taken
    assert found == pytest.approx(max(waited, 1 - ran, 0.0), abs=1e-9)


@settings(deadline=None)
@given(shares, seconds, st.floats(0, 100))
def test_a_stretch_is_disturbed_by_what_was_taken_or_by_its_length(taken, best, times):
    disturbed = severity(taken, times * best, best) > 1
    assert disturbed == (taken / TAKEN > 1 or times * best / (STALLED * best) > 1)


def test_a_clock_that_jumps_or_a_pause_disturbs():
    """An hour passes, in which the process had two cores for a second and waited for neither."""
    paused = Stretch(3600.0, 2.0, 0.0, 0)
    assert severity(paused.taken, 1.0, 1.0) > 1
    assert severity(0.0, 3600.0, 1.0) > 1


@pytest.mark.parametrize("best", [0.0, -1.0])
def test_a_clock_that_stands_still_or_runs_back_is_said(best):
    with pytest.raises(RuntimeError, match="clock stood still or ran backwards"):
        severity(0.0, 1.0, best)


def test_samples_are_judged_by_the_best_of_them_and_by_what_was_taken():
    """A quarter was taken from 1.0 s; 2.0 s and 1.9 s are over three times the best."""
    waited = {2.0: 0.0, 1.0: 0.25, 0.6: 0.0, 1.9: 0.0}
    stretches = [Stretch(wall, 2 * wall, share * wall, 0) for wall, share in waited.items()]
    told = describe([wall * 1e3 for wall in waited], stretches)
    assert told == {
        "cpu_shares": [2.0] * 4,
        "taken_shares": [0.0, 0.25, 0.0, 0.0],
        "disturbed": 3,
    }


def test_what_stands_beside_samples_is_that_of_all_sittings():
    found = [
        {"cpu_shares": [1.0, 2.0], "disturbed": 1, "retaken": 2},
        {"cpu_shares": [1.5, 1.8], "disturbed": 1, "retaken": 0},
    ]
    told = {"cpu_shares": [1.0, 2.0, 1.5, 1.8], "disturbed": 2, "retaken": 2}
    assert beside(found) == told
    assert beside([{"samples_ms": [1.0]}]) == {}
    on_a_gpu = [{"cpu_shares": [], "disturbed": 1, "retaken": 1}]
    assert beside(on_a_gpu) == {"disturbed": 1, "retaken": 1}


def test_only_records_that_say_so_are_counted():
    samples = {"samples_ms": [1.0] * 4}
    records = [samples | {"disturbed": 1}, samples, samples | {"disturbed": 3}]
    assert count_disturbed(records) == (4, 8)
    assert count_disturbed([samples]) == (0, 0)


def test_more_than_a_quarter_is_much():
    assert not is_mostly(0, 0)
    assert not is_mostly(MOSTLY * 100, 100)
    assert is_mostly(MOSTLY * 100 + 1, 100)
