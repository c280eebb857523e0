"""The gpu suite on paper: a sweep's own code, with recorded costs in place of a GPU."""

from collections import Counter

import pytest
from command_line import assert_one_line_error, call_lossbench

from lossbench.bench.cases.case import Case
from lossbench.bench.cases.selection import select_cases
from lossbench.bench.cases.suites import ALONE, HEADLINE
from lossbench.bench.counting.recording import CAN_RECORD
from lossbench.bench.interface import display
from lossbench.bench.predicting import gpus
from lossbench.bench.records.failures import OUT_OF_BUDGET
from lossbench.bench.records.runfile import Writer
from lossbench.bench.running import rehearsal
from lossbench.bench.running.rehearsal import Rehearsal, Timeline, rehearse

CHECKED_S, HEADLINE_S = 90.0, 330.0
PAIRED = {"paired": True, "errors": True, "energy": False}
needs_triton = pytest.mark.skipif(not CAN_RECORD, reason="kernels are not launched here")


class Followed(Timeline):
    """Notes when each case began, too."""

    def __init__(self, worker):
        super().__init__(worker)
        self.worker, self.begun = worker, []

    def start(self, case):
        self.begun.append(self.worker.now())


@pytest.fixture(scope="module")
def first_stages():
    """The check and the headline, rehearsed once; with the second of each line of the run file."""
    cases = select_cases("gpu-check", there="cuda") + select_cases("gpu-headline", there="cuda")
    written, timelines = [], []
    append = Writer.append

    def noted(self, record):
        written.append((timelines[-1].worker.now(), record["key"]))
        append(self, record)

    def followed(worker):
        timelines.append(Followed(worker))
        return timelines[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal, "Timeline", followed)
        patch.setattr(Writer, "append", noted)
        timeline = rehearse(cases, float("inf"), **PAIRED)
    return cases, timeline, written


@needs_triton
def test_every_case_is_gone_through(first_stages):
    cases, timeline, _ = first_stages
    assert [case for _, case, _ in timeline.known] == cases
    statuses = Counter(record["status"] for _, _, record in timeline.known)
    assert set(statuses) == {"ok", "oom"}
    for _, case, record in timeline.known:
        assert bool(record["launches"]) == (case.implementation != "compiled")
        too_large = case.batch == 65536 and case.implementation in ("reference", "compiled")
        assert (record["status"] == "oom") == too_large
    assert timeline.lines == []


@needs_triton
def test_the_check_ends_in_90_seconds_and_the_headline_in_five_and_a_half_minutes(first_stages):
    _, timeline, _ = first_stages
    ends = {case.stage: seconds for seconds, case, _ in timeline.known}
    assert max(ends[stage] for stage in ALONE) < CHECKED_S
    assert ends[HEADLINE] < HEADLINE_S


@needs_triton
def test_a_stop_at_any_second_loses_at_most_one_case(first_stages):
    _, timeline, written = first_stages
    for second in range(int(HEADLINE_S)):
        begun = sum(begin <= second for begin in timeline.begun)
        kept = len({key for at, key in written if at <= second})
        assert begun - kept <= 1, f"a stop after {second} s loses {begun - kept} cases"


@needs_triton
def test_the_headline_is_timed_in_turn_in_two_processes(first_stages):
    _, timeline, _ = first_stages
    timed = [r for _, case, r in timeline.known if case.stage == HEADLINE and r["status"] == "ok"]
    assert {record["pair_processes"] for record in timed} == {2}
    assert len({record["pair_group"] for record in timed}) == 3
    assert not any("pair_group" in r for _, case, r in timeline.known if case.stage in ALONE)


@needs_triton
@pytest.mark.parametrize("budget_s", [30.0, 80.0, 140.0])
def test_a_budget_is_kept_and_what_it_leaves_out_is_said(budget_s):
    cases = select_cases("gpu-headline", there="cuda")
    timeline = rehearse(cases, budget_s, **PAIRED)
    assert len(timeline.known) == len(cases)
    ends = max(seconds for seconds, _, _ in timeline.known)
    assert ends <= rehearsal.BEGIN_S + budget_s + rehearsal.KERNELS_S + 30
    whole = [r for _, _, r in timeline.known if r.get("pair_processes") == 2]
    assert len(whole) < len(cases)
    left_out = [r for _, _, r in timeline.known if r["status"] == "timeout"]
    assert left_out or timeline.lines


def test_kernels_of_a_stage_take_seconds_to_compile():
    eager, fused = (Case("smi", way, device="cuda") for way in ("gram", "triton"))

    def prepared_s(*cases):
        worker = Rehearsal(gpus.gpu(rehearsal.GPU))
        worker.prepare(cases, timeout_s=float("inf"))
        return worker.now()

    assert prepared_s(eager, fused, fused) - prepared_s(eager) == rehearsal.KERNELS_S
    assert rehearsal.KERNELS_S > 5


def test_energy_takes_its_time():
    cases = select_cases("gpu-headline", batch=[256], implementation=["reference"], there="cuda")
    without, with_energy = (
        rehearse(cases, float("inf"), **{**PAIRED, "energy": energy}).known[-1][0]
        for energy in (False, True)
    )
    assert with_energy - without == pytest.approx(rehearsal.LEAST_S * len(cases))


@needs_triton
def test_from_the_command_line():
    one = ("--batch", "256", "--dim", "8192", "--loss", "smi")
    done = call_lossbench("run", "--suite", "gpu-headline", *one, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "headline" in done.stdout
    assert "Nothing was run." in done.stdout


def test_auto_chooses_by_the_memory_of_the_gpu_that_is_imagined():
    cases = select_cases(
        loss=["smi"], batch=[256], dim=[128], implementation=["auto"], there="cuda"
    )
    ((_, case, record),) = rehearse(cases, float("inf"), **PAIRED).known
    assert record["status"] == "ok"
    assert case.options == {"memory_bytes": 80_000_000_000}


def test_what_the_budget_leaves_out_and_why_others_fail_is_printed(capsys):
    fields = Case("smi", "gram", 4, 4).describe()
    left_out = fields | {"status": "timeout", "reason": OUT_OF_BUDGET}
    failed = fields | {"loss": "vicreg", "status": "error", "reason": "nobody knows"}
    display.rehearsal([(1.0, Case("smi"), left_out), (2.0, Case("vicreg"), failed)])
    lines = capsys.readouterr().out.splitlines()
    assert "left out" in lines[1]
    assert "error" in lines[2]
    assert [line for line in lines if "nobody knows" in line] == ["vicreg gram: nobody knows"]


def test_a_cpu_is_not_rehearsed():
    done = call_lossbench("run", "--loss", "smi", "--device", "cpu", "--dry-run")
    assert_one_line_error(done, "--dry-run is for a GPU")


@pytest.mark.parametrize("other", [("--frontier",), ("--json",)])
def test_it_goes_with_nothing_that_would_run(other):
    done = call_lossbench("run", "--loss", "smi", "--dry-run", *other)
    assert_one_line_error(done, "leave --frontier and --json out")
