"""A busy machine in a sweep: what its header and records hold, and what the user is told."""

from itertools import cycle

import pytest
from test_sweep import Quiet

from lossbench.bench.cases.case import Case
from lossbench.bench.measuring import spin
from lossbench.bench.measuring.disturbance import MOSTLY
from lossbench.bench.measuring.spin import Spin
from lossbench.bench.records.runfile import read
from lossbench.bench.running import sweep as sweep_module
from lossbench.bench.running.sweep import Limits, open_run, sweep

CALM, BUSY = Spin(1.1, waited=0.01, steal=0.0), Spin(3.5, waited=0.38, steal=0.0, pressure=0.9)
CASES = [Case(loss, batch=batch, dim=16) for batch in (8, 12) for loss in ("smi", "vicreg")]
ALONE_SAMPLES = 4


class Worker:
    """Of a case one sample is disturbed when it is timed alone, and two of each process in turn."""

    def __init__(self, device, memory_bytes=None):
        pass

    def evaluate(self, case, timeout_s, measure=True, **_):
        if not measure:
            return {"macs": 1}
        times = dict.fromkeys(("median_ms", "p20_ms", "p80_ms", "call_ms"), 1.0)
        done = {"status": "ok", "reason": "", "macs": 1, "peak_bytes": 1, **times}
        beside = {"cpu_shares": [1.9] * ALONE_SAMPLES, "disturbed": 1}
        return {**done, "samples_ms": [1.0] * ALONE_SAMPLES, **beside}

    def compare(self, cases, rounds, timeout_s, scales=None):
        return {
            "samples_ms": [[float(place + 1)] * n for place, n in enumerate(rounds)],
            "cpu_shares": [[1.0 + place] * n for place, n in enumerate(rounds)],
            "disturbed": [2 for _ in cases],
            "retaken": list(range(len(cases))),
            "checks": [{"status": "ok", "reason": ""} for _ in scales or ()],
        }

    def stop(self):
        pass


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A sweep on a machine that is tested with these results, one after the other."""
    monkeypatch.setattr(sweep_module, "Worker", Worker)

    def run(tests, paired=True, limits=None, cases=CASES):
        results = cycle(tests)
        monkeypatch.setattr(spin, "spin", lambda: next(results))
        progress = Quiet()
        writer, _ = open_run(tmp_path / "run.jsonl", "cpu")
        with writer:
            sweep(cases, writer, limits or Limits(), progress, paired)
        told = [said for event, said in progress.events if event == "tell"]
        return read(tmp_path / "run.jsonl"), told

    return run


def test_the_header_and_each_record_hold_the_test_that_was_made_beside_it(run):
    """Before the run, then after each of two groups."""
    found, _ = run([CALM, BUSY, CALM])
    assert found.header["spin"] == CALM.describe()
    first, second = found.records[:2], found.records[2:]
    for records, test in ((first, BUSY), (second, CALM)):
        for record in records:
            assert test.fields().items() <= record.items()
    found, _ = run([BUSY], cases=[Case("nt_xent", batch=8, dim=16)], paired=False)
    assert BUSY.fields().items() <= found.records[-1].items()


def test_records_hold_what_stands_beside_their_samples(run):
    found, _ = run([CALM])
    for place, record in enumerate(found.records[:2]):
        assert len(record["cpu_shares"]) == len(record["samples_ms"])
        assert set(record["cpu_shares"]) == {1.0 + place}
        assert record["disturbed"] == 2 * record["pair_processes"]
        assert record["retaken"] == place * record["pair_processes"]
        assert record["drift"] == 1.0
        assert record["disturbed"] < MOSTLY * len(record["samples_ms"])


def test_nothing_is_said_of_a_calm_machine(run):
    assert run([CALM])[1] == []


def test_a_machine_that_is_busy_at_first_is_named_once(run):
    _, told = run([BUSY, CALM, CALM])
    assert told == [
        "the machine is busy: threads had to wait for a core 38% of the time; times will be "
        "uncertain, counts and memory are not"
    ]


def test_one_that_is_still_busy_is_named_again_with_what_that_did(run):
    found, told = run([BUSY])
    samples = sum(len(record["samples_ms"]) for record in found.records)
    disturbed = sum(2 * record["pair_processes"] for record in found.records)
    assert told[1:] == [
        "the machine is still busy: threads had to wait for a core 38% of the time; "
        f"{disturbed} of {samples} samples stayed disturbed; measure again when it is quieter"
    ]


def test_cases_that_were_timed_alone_are_followed_by_a_test_of_their_own(run):
    _, told = run([CALM, BUSY], paired=False)
    assert len(told) == 1
    assert told[0].startswith("the machine is still busy: threads had to wait for a core 38%")


def test_one_that_was_busy_meanwhile_is_named_by_its_samples(run, monkeypatch):
    evaluate = Worker.evaluate
    monkeypatch.setattr(
        Worker,
        "evaluate",
        lambda *arguments, **how: {**evaluate(*arguments, **how), "disturbed": 2},
    )
    _, told = run([CALM], paired=False)
    assert told == [
        f"the machine was busy; {2 * len(CASES)} of {ALONE_SAMPLES * len(CASES)} samples stayed "
        "disturbed; measure again when it is quieter"
    ]


def test_a_run_that_measures_nothing_is_not_tested_again(run):
    run([CALM])
    _, told = run([CALM, BUSY])
    assert told == []
    found, told = run([BUSY], limits=Limits(budget_s=0), cases=[Case("smi", batch=99, dim=16)])
    assert len(told) == 1
    assert "spin_slowdown" not in found.records[-1]  # nothing was timed


def test_where_others_of_ours_compute_or_nothing_is_measured_the_machine_is_not_tested(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(spin, "spin", None)
    writer, _ = open_run(tmp_path / "run.jsonl", "cpu", is_alone=False)
    with writer:
        assert "spin" not in writer.header
        monkeypatch.setattr(sweep_module, "Worker", Worker)
        progress = Quiet()
        sweep(CASES, writer, Limits(), progress, paired=True)
    assert not any(event == "tell" for event, _ in progress.events)
    assert not any("spin_slowdown" in record for record in writer.records.values())
