"""Sweeps: every failure is a row, a budget or a kill loses nothing, nothing runs twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lossbench.bench.cases.case import Case
from lossbench.bench.measuring.timing import MOMENTS
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.records.failures import describe_failure
from lossbench.bench.records.runfile import read
from lossbench.bench.running import sweep as sweep_module
from lossbench.bench.running.sweep import Limits, are_done, case_key, open_run, sweep
from lossbench.bench.running.worker import Worker
from lossbench.reports.records import load

LOSSES = ("barlow_twins", "nt_xent", "smi", "vicreg")
CASES = [Case(loss, batch=8, dim=16, pass_="forward") for loss in LOSSES]


class Quiet:
    def __init__(self):
        self.events = []

    def skip(self, case):
        self.events.append(("skip", case.loss))

    def start(self, case):
        self.events.append(("start", case.loss))

    def compare(self, cases):
        self.events.append(("compare", len(cases)))

    def finish(self, case, record):
        self.events.append((record["status"], case.loss))

    def tell(self, line):
        self.events.append(("tell", line))


MEASURED = dict.fromkeys(("median_ms", "p20_ms", "p80_ms", "peak_bytes", "saved_bytes", "macs"), 1)


class FakeWorker:
    """Stands in for the child process, so that a sweep's own logic is quick to test."""

    def __init__(self, device, memory_bytes=None):
        pass

    def evaluate(self, case, timeout_s, measure=True, **how):
        return {"status": "ok", "reason": "", **MEASURED} if measure else {"macs": 1}

    def stop(self):
        pass


@pytest.fixture
def fake_worker(monkeypatch):
    monkeypatch.setattr(sweep_module, "Worker", FakeWorker)


def run(path, cases=CASES, limits=None):
    progress = Quiet()
    writer, _ = open_run(path, "cpu")
    with writer:
        return sweep(cases, writer, limits or Limits(), progress), progress.events


def test_run_twice_measures_nothing_twice(tmp_path, fake_worker):
    first, _ = run(tmp_path / "run.jsonl")
    assert (first.measured, first.left) == (4, 0)
    second, events = run(tmp_path / "run.jsonl")
    assert second.measured == 0
    assert events == [("skip", case.loss) for case in CASES]
    assert second.records == first.records


def test_a_process_whose_gpu_is_broken_is_replaced(tmp_path, monkeypatch, fake_worker):
    """After an illegal access every further call of a process fails."""
    state = {"broken": False}

    def evaluate(self, case, timeout_s, **how):
        if case.loss == "nt_xent" or state["broken"]:
            state["broken"] = True
            return {"status": "error", "reason": "CUDA error: an illegal memory access"}
        return {"status": "ok", "reason": "", **MEASURED}

    monkeypatch.setattr(FakeWorker, "evaluate", evaluate)
    monkeypatch.setattr(FakeWorker, "stop", lambda self: state.update(broken=False))
    outcome, _ = run(tmp_path / "run.jsonl")
    statuses = {record["loss"]: record["status"] for record in outcome.records}
    assert statuses == {**dict.fromkeys(LOSSES, "ok"), "nt_xent": "error"}


def test_a_result_that_beats_the_ceilings_has_them_measured_again(
    tmp_path, monkeypatch, fake_worker
):
    """5 GFLOP of 50 GFLOP/s in truth, which the first calibration, beside others, halved."""
    calibrated = [{"float32": rate} for rate in (25.0, 49.0, 40.0, 40.0)]
    monkeypatch.setattr(
        sweep_module, "calibrate", lambda device: Ceilings(calibrated.pop(0), [(1, 1e6)], 1.0)
    )

    def evaluate(self, case, timeout_s, measure=True, ceilings=None, **how):
        told = {"ceiling_ms": 5e3 / ceilings.gemm_gflops["float32"], "launches": 7}
        times = {**MEASURED, "median_ms": 100.0}
        return {**told, "status": "ok", "reason": "", **times} if measure else told

    monkeypatch.setattr(FakeWorker, "evaluate", evaluate)
    path = tmp_path / "run.jsonl"
    _, events = run(path, CASES[:1])
    assert sum(kind == "tell" for kind, _ in events) == 1
    run(path, CASES)
    assert not calibrated
    found = read(path)
    assert found.header["calibration"]["gemm_gflops"] == {"float32": 25.0}
    *again, last = found.records  # twice in the second session
    assert [each["calibration"]["gemm_gflops"]["float32"] for each in again] == [49.0] * 3
    assert "calibration" not in last
    for record in found.records:
        assert (record["status"], record["fraction_of_ceiling"]) == ("ok", 1)
        assert record["ceiling_ms"] == pytest.approx(5e3 / 49)
        assert record["ceiling_raised"] == pytest.approx(50 / 49 - 1)
    for known in load([path])["calibration"]:
        assert known["gemm_gflops"] == {"float32": 49.0}


class Sampler(FakeWorker):
    """Samples at one moment when it evaluates; the second visit of all takes ``interrupt``."""

    visits, interrupt = 0, None

    def evaluate(self, case, timeout_s, measure=True, ceilings=None, **how):
        times = {**MEASURED, "median_ms": 9.0, "samples_ms": [9.0, 9.0], "moments": 1}
        told = {"ceiling_ms": 2.0, "launches": 7}
        return {**told, "status": "ok", "reason": "", **times} if measure else told

    def sample_again(self, case, count, timeout_s):
        type(self).visits += 1
        if self.visits == 2 and self.interrupt:
            raise self.interrupt
        return {"samples_ms": [4.0] * count}


@pytest.fixture
def sampler(monkeypatch):
    monkeypatch.setattr(Sampler, "visits", 0)
    monkeypatch.setattr(Sampler, "interrupt", None)
    monkeypatch.setattr(sweep_module, "Worker", Sampler)
    return Sampler


def test_what_later_moments_show_is_in_the_file_and_judged(tmp_path, sampler):
    outcome, events = run(tmp_path / "run.jsonl")
    assert [event for event in events if event[0] == "ok"] == [("ok", loss) for loss in LOSSES]
    assert sampler.visits == 2 * len(CASES)
    assert outcome.records == list({each["key"]: each for each in read_all(tmp_path)}.values())
    for record in outcome.records:
        assert record["samples_ms"] == [9.0, 9.0, 4.0, 4.0, 4.0, 4.0]
        assert (record["median_ms"], record["fraction_of_ceiling"]) == (4.0, 0.5)


def test_a_sweep_that_ended_between_visits_goes_on_with_them(tmp_path, monkeypatch, sampler):
    monkeypatch.setattr(sampler, "interrupt", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run.jsonl")
    assert sorted({each["moments"] for each in read_all(tmp_path)}) == [1, 2]
    without_time, events = run(tmp_path / "run.jsonl", CASES[:1], Limits(budget_s=0))
    assert (without_time.measured, events) == (0, [("skip", CASES[0].loss)])
    outcome, _ = run(tmp_path / "run.jsonl")
    assert outcome.measured == len(CASES)
    assert {each["moments"] for each in outcome.records} == {3}
    assert sampler.visits == 2 * len(CASES) + 1  # but for the one that was interrupted
    again, events = run(tmp_path / "run.jsonl")
    assert (again.measured, {what for what, _ in events}) == (0, {"skip"})


def read_all(folder):
    return read(folder / "run.jsonl").records


def test_a_case_named_twice_is_measured_once(tmp_path, fake_worker):
    outcome, _ = run(tmp_path / "run.jsonl", [*CASES, *CASES])
    assert outcome.measured == len(outcome.records) == 4


def test_budget_stops_before_a_case_and_the_rest_resumes(tmp_path, fake_worker):
    outcome, _ = run(tmp_path / "run.jsonl", limits=Limits(budget_s=0))
    assert (outcome.measured, outcome.left) == (0, 4)
    outcome, _ = run(tmp_path / "run.jsonl")
    assert (outcome.measured, outcome.left) == (4, 0)


def test_budget_leaves_out_a_case_that_would_not_fit(tmp_path, fake_worker):
    # The first case shows 8^2 x 16 x 3 MACs a millisecond: 1e10 MACs would take hours.
    huge = Case("smi", batch=2048, dim=800, pass_="forward")
    outcome, events = run(tmp_path / "run.jsonl", [CASES[2], huge], Limits(budget_s=60))
    assert (outcome.measured, outcome.left) == (1, 1)
    assert events == [("start", "smi"), ("ok", "smi"), ("start", "smi"), ("timeout", "smi")]
    left_out = outcome.records[1]
    assert left_out["reason"] == "not measured: the budget was spent"
    assert left_out["macs"] == 1  # counted all the same


def test_what_time_or_memory_stopped_is_tried_again(tmp_path, monkeypatch, fake_worker):
    statuses = dict(zip(LOSSES, ("timeout", "oom", "invalid", "unsupported"), strict=True))
    failing = {"reason": "said why"}

    def fail(self, case, timeout_s, **how):
        return failing | {"status": statuses[case.loss]}

    with monkeypatch.context() as patch:
        patch.setattr(FakeWorker, "evaluate", fail)
        run(tmp_path / "run.jsonl")
    outcome, _ = run(tmp_path / "run.jsonl")
    assert outcome.measured == 2
    assert [record["status"] for record in outcome.records] == [
        "ok",
        "ok",
        "invalid",
        "unsupported",
    ]
    assert len(read(tmp_path / "run.jsonl").records) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"batch": 9},
        {"dtype": "float64"},
        {"pass_": "forward"},
        {"world": 2},
        {"inputs": "digits"},
        {"hyperparameters": {"lambda_": 2.0}},
        {"implementation": "chunked"},
        {"implementation": "chunked", "options": {"workspace_bytes": 4096}},
        {"implementation": "own", "contender": "third_party:scaled"},
    ],
)
def test_content_key_changes_with_the_case(change):
    header = {"code_hash": "c", "environment_hash": "e"}
    case = Case("smi", batch=8, dim=16)
    assert case_key(case, header) == case_key(replace(case), header)
    assert case_key(replace(case, **change), header) != case_key(case, header)
    assert case_key(case, header | {"code_hash": "d"}) != case_key(case, header)
    assert case_key(case, header | {"environment_hash": "f"}) != case_key(case, header)


def test_out_of_memory_is_a_row_and_the_sweep_goes_on(tmp_path):
    small, big = Case("smi", batch=8, dim=16), Case("barlow_twins", batch=2, dim=40_000)
    limits = Limits(memory_bytes=4 * 2**30, timeout_s=60)
    outcome, _ = run(tmp_path / "run.jsonl", [big, small], limits)  # C is 6.4 GB
    statuses = [(record["loss"], record["status"]) for record in outcome.records]
    assert statuses == [("barlow_twins", "oom"), ("smi", "ok")]
    assert outcome.records[0]["macs"] == 3 * 2 * 40_000**2  # counts need no memory
    assert "median_ms" not in outcome.records[0]
    assert outcome.records[0]["reason"].endswith("6.4 GB more did not fit in memory")


@pytest.mark.long
def test_a_check_that_does_not_fit_leaves_the_measurement(tmp_path):
    # C is 1.02 GB in fp32; the fp64 truth needs twice that, on top of its own copies.
    case = Case("barlow_twins", batch=8, dim=16_000, pass_="forward")
    outcome, _ = run(tmp_path / "run.jsonl", [case], Limits(memory_bytes=4 * 2**30))
    (record,) = outcome.records
    assert (record["status"], record["reason"]) == ("ok", "not verified: oom")
    assert record["value_fp64"] is None
    assert record["peak_bytes"] > 4 * 16_000**2


def test_a_case_that_takes_too_long_times_out_and_the_next_one_runs():
    worker = Worker("cpu")
    try:
        slow = Case("vicreg", batch=512, dim=4096)
        assert worker.evaluate(slow, timeout_s=0.01)["status"] == "timeout"
        assert worker.evaluate(CASES[0], timeout_s=60)["status"] == "ok"
    finally:
        worker.stop()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, "oom"), (signal.SIGSEGV, "error")])
def test_a_killed_child_is_a_row_that_says_how_it_ended(number, status):
    worker = Worker("cpu")
    try:
        worker.evaluate(CASES[0], timeout_s=60)
        os.kill(worker._process.pid, number)
        fields = worker.evaluate(CASES[1], timeout_s=60)
        assert fields["status"] == status
        assert worker.evaluate(CASES[2], timeout_s=60)["status"] == "ok"
    finally:
        worker.stop()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "oom"),
        (NotImplementedError("no kernel"), "unsupported"),
        (RuntimeError("\"addmm\" not implemented for 'Half'"), "unsupported"),
        (ZeroDivisionError("division by zero"), "error"),
    ],
)
def test_failures_get_the_status_that_says_why(error, status):
    fields = describe_failure(error)
    assert fields["status"] == status
    assert type(error).__name__ in fields["reason"]


def test_cuda_where_there_is_none_is_a_row():
    if torch.cuda.is_available():
        device, expected = "cuda", "ok"
    else:
        device, expected = "cuda", "unsupported"
    worker = Worker(device)
    try:
        fields = worker.evaluate(replace(CASES[0], device=device), timeout_s=120)
    finally:
        worker.stop()
    assert fields["status"] == expected


@pytest.mark.long
def test_kill_at_random_moments_loses_nothing_finished_and_measures_nothing_twice(tmp_path):
    path = tmp_path / "run.jsonl"
    batches = ",".join(map(str, range(2, 122)))
    grid = ["--loss", "smi", "--batch", batches, "--dim", "16", "--pass", "forward"]
    grid += ["--implementation", "reference"]
    command = [sys.executable, "-m", "lossbench", "run", *grid, "--out", str(path)]
    options = {
        "env": os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    generator = random.Random(0)
    finished: list[dict] = []
    for _ in range(20):
        with subprocess.Popen(command, **options) as process:
            while len(lines_of(path)) == len(finished) and process.poll() is None:
                time.sleep(0.02)
            time.sleep(generator.uniform(0, 0.5))
            assert process.poll() is None, "the sweep ended before it could be killed"
            process.kill()
        lines = lines_of(path)
        assert lines[: len(finished)] == finished
        assert len(lines) > len(finished)
        finished = lines
    known = {line["key"]: line for line in finished}  # of several lines of a case the last counts
    assert len(known) < 120
    evaluated = [line["key"] for line in finished if line["moments"] == 1]
    assert evaluated == list(known)  # each case once
    result = subprocess.run(command, **options)
    assert result.returncode == 0
    records = lines_of(path)
    keys = [record["key"] for record in records]
    assert len(keys) == len(set(keys)) == 120
    assert keys[: len(known)] == list(known)
    for record, line in zip(records, known.values(), strict=False):
        assert record["samples_ms"][: len(line["samples_ms"])] == line["samples_ms"]
    assert {record["moments"] for record in records} == {MOMENTS}
    assert read(path).records == records


def lines_of(path: Path) -> list[dict]:
    """The whole lines of a run file but its header, as they stand in it."""
    lines = path.read_bytes().split(b"\n")[1:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def test_children_end_with_their_parent(tmp_path):
    code = (
        "import os, signal, time\n"
        "from lossbench.bench.cases.case import Case\n"
        "from lossbench.bench.running.worker import Worker\n"
        "if __name__ == '__main__':\n"
        "    worker = Worker('cpu')\n"
        "    worker.evaluate(Case('smi', batch=4, dim=4), 60)\n"
        "    print(worker._process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    result = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60
    )
    child = Path("/proc", result.stdout.strip())
    for _ in range(100):
        if not child.exists():
            break
        time.sleep(0.05)
    assert not child.exists()


@pytest.mark.parametrize(("device", "done"), [("cuda", True), ("cpu", False)])
def test_what_did_not_fit_is_tried_again_where_others_share_the_memory(device, done):
    record = {"status": "oom", "device": device}
    assert are_done([CASES[0]], [record], paired=False, errors=True, energy=False) is done


def test_kernels_that_cannot_be_compiled_ahead_are_said_and_cases_go_on(tmp_path, monkeypatch):
    class Slow(FakeWorker):
        def prepare(self, cases, timeout_s):
            return {"status": "timeout", "reason": f"not finished after {timeout_s:g} s"}

        def stop(self):
            pass

    told = Ceilings({"float32": 1.0}, [(1, 1.0)], 1.0)
    writer, _ = open_run(tmp_path / "run.jsonl", "cpu", calibration=told.describe, is_alone=False)
    progress, case = Quiet(), replace(CASES[0], device="cuda")
    with writer:
        outcome = sweep([case], writer, Limits(timeout_s=7), progress, worker=Slow("cuda"))
    assert outcome.measured == 1
    lines = [line for event, line in progress.events if event == "tell"]
    assert lines == ["kernels are not compiled ahead: not finished after 7 s"]
