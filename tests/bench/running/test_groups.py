"""Paired sweeps: who is compared with whom, and that nothing of it is lost or done twice."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from test_sweep import Quiet

from lossbench.bench.cases.case import Case
from lossbench.bench.comparing import ratios
from lossbench.bench.comparing.ratios import LEAST, LOOKS
from lossbench.bench.records.runfile import Writer, read
from lossbench.bench.running import groups, sittings
from lossbench.bench.running import sweep as sweep_module
from lossbench.bench.running.budget import Clock
from lossbench.bench.running.groups import (
    ABOUT,
    MAX_ROUNDS,
    MIN_ROUNDS,
    PROCESSES,
    QUICK_ROUNDS,
    TARGET_S,
    end_s,
    group,
    processes,
    rounds,
)
from lossbench.bench.running.sittings import Room
from lossbench.bench.running.sweep import Limits, open_run, sweep

BASE = Case("smi", batch=8, dim=16)
COMPARABLE = [
    BASE,
    replace(BASE, implementation="chunked"),
    replace(BASE, implementation="chunked", options={"workspace_bytes": 4096}),
    replace(BASE, hyperparameters={"lambda_": 2.0}),
    replace(BASE, loss="nt_xent"),
    replace(BASE, loss="barlow_twins", implementation="own", contender="third_party:scaled"),
]
OTHERS = [
    replace(BASE, batch=9),
    replace(BASE, dim=17),
    replace(BASE, dtype="float64"),
    replace(BASE, pass_="forward"),
    replace(BASE, inputs="digits"),
    replace(BASE, world=2, distribution="gather"),
]


def test_cases_that_differ_in_loss_and_how_it_is_computed_are_compared():
    assert group(COMPARABLE) == [COMPARABLE]


@pytest.mark.parametrize("other", OTHERS)
def test_cases_that_differ_in_shape_dtype_pass_or_inputs_are_not(other):
    assert group([BASE, other]) == [[BASE], [other]]


def test_groups_come_in_the_order_of_their_first_case():
    late = [replace(case, batch=32) for case in COMPARABLE]
    mixed = [case for pair in zip(late, COMPARABLE, strict=True) for case in pair]
    assert group(mixed) == [late, COMPARABLE]


VISITS = [[0.06], [0.06] * 9, [0.06] * 30, [1.0, 0.06], [40.0, 2.0, 0.5], [1e-4], [1e3]]


@pytest.mark.parametrize("left_s", [float("inf"), 20.0, 1.0])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("visits", VISITS)
def test_the_first_rounds_fit_in_the_budget_and_the_others_in_the_time_of_a_group(
    visits, device, left_s
):
    count = processes(visits, device, left_s)
    if not count:
        assert MIN_ROUNDS * sum(visits) > ABOUT * left_s
        return
    assert count in (1, PROCESSES[device])
    assert MIN_ROUNDS * sum(visits) <= ABOUT * end_s(visits, device, left_s) <= ABOUT * left_s
    if count > 1:
        assert count * MIN_ROUNDS * sum(visits) <= TARGET_S[device]


@pytest.mark.parametrize("visits", VISITS)
@pytest.mark.parametrize("looks", [1, 2, 5])
@pytest.mark.parametrize("seconds", np.geomspace(0.01, 1e4, 13).tolist())
def test_rounds_are_even_and_end_in_time(visits, looks, seconds):
    number = rounds(seconds, looks, visits)
    assert number % 2 == 0
    assert number <= MAX_ROUNDS
    assert number * sum(visits) <= seconds
    if not number:
        assert MIN_ROUNDS * sum(visits) > seconds
    elif number > MIN_ROUNDS:  # the time is shared by the looks to come
        assert number * sum(visits) <= seconds / looks


def test_long_rounds_are_compared_in_one_process():
    assert processes([0.001, 0.001], "cpu") == PROCESSES["cpu"]
    assert processes([TARGET_S["cpu"]] * 2, "cpu") == 1


@pytest.mark.parametrize(("left_s", "expected"), [(22.0, 1), (20.0, 1), (19.0, 1), (18.0, 0)])
def test_rounds_that_take_about_what_is_left_are_begun(left_s, expected):
    assert processes([10.0], "cpu", left_s) == expected


@pytest.mark.parametrize(
    ("left_s", "expected"), [(60.0, PROCESSES["cuda"]), (8.0, 1), (2.5, 1), (1.0, 0)]
)
def test_what_is_left_of_a_budget_is_looked_at_before_a_group_is_timed(left_s, expected):
    assert processes([0.1] * 9, "cuda", left_s) == expected


class FakeWorker:
    """Stands in for the child processes.

    A call takes as many milliseconds as its loss has letters, give or take ``noise``; it claims to
    take ``call_ms``. ``broken`` says what a case's evaluation gives instead.
    """

    broken: ClassVar = {}
    comparisons: ClassVar = []
    noise: ClassVar = [0.05]
    call_ms: ClassVar = {}
    stops: ClassVar = []

    def __init__(self, device, memory_bytes=None):
        pass

    def evaluate(self, case, timeout_s, measure=True, sample=True, errors=False, **_):
        counted = {"macs": 1}
        if not measure or case.loss in self.broken:
            return {**counted, **self.broken.get(case.loss, {})}
        call_ms = self.call_ms.get(case.loss, 1.0)
        times = dict.fromkeys(("median_ms", "p20_ms", "p80_ms"), call_ms)
        times |= {"samples_ms": [call_ms], "taken_shares": [0.0]}
        done = {"status": "ok", "reason": "", "call_ms": call_ms, "peak_bytes": 1, "disturbed": 0}
        return {**counted, **done, **times, **({"accuracy": "measured"} if errors else {})}

    def compare(self, cases, rounds, timeout_s, scales=None):
        self.comparisons.append([case.label for case in cases])
        checks = [{"status": "ok", "reason": ""} for _ in scales or ()]
        generator = np.random.default_rng(len(self.comparisons))
        samples = [
            (len(c.loss) * np.exp(generator.normal(0, self.noise[0], n))).tolist()
            for c, n in zip(cases, rounds, strict=True)
        ]
        return {"samples_ms": samples, "checks": checks}

    def stop(self):
        self.stops.append(len(self.comparisons))


@pytest.fixture
def fake_worker(monkeypatch):
    monkeypatch.setattr(FakeWorker, "broken", {})
    monkeypatch.setattr(FakeWorker, "comparisons", [])
    monkeypatch.setattr(FakeWorker, "noise", [0.05])
    monkeypatch.setattr(FakeWorker, "call_ms", {})
    monkeypatch.setattr(FakeWorker, "stops", [])
    monkeypatch.setattr(sweep_module, "Worker", FakeWorker)
    return FakeWorker


LOSSES = ("barlow_twins", "nt_xent", "vicreg")
CASES = [Case(loss, batch=batch, dim=16) for batch in (8, 12) for loss in LOSSES]


def run(path, cases=CASES, paired=True, errors=False, limits=None):
    progress = Quiet()
    writer, _ = open_run(path, "cpu")
    with writer:
        outcome = sweep(cases, writer, limits or Limits(), progress, paired, errors)
    assert read(path).records == list(writer.records.values())  # no reader refuses them
    return outcome, progress.events


def test_every_group_is_compared_in_the_fewest_processes_if_that_settles_it(tmp_path, fake_worker):
    outcome, _ = run(tmp_path / "run.jsonl")
    assert outcome.measured == 6
    eight, twelve = outcome.records[:3], outcome.records[3:]
    assert len({record["pair_group"] for record in eight}) == 1
    assert {record["pair_group"] for record in eight}.isdisjoint(r["pair_group"] for r in twelve)
    assert len(fake_worker.comparisons) == 2 * LEAST  # 12, 7 and 6 ms, give or take 5%
    # the quickest case is timed again as its own control
    first = fake_worker.comparisons[0]
    assert first == [case.label for case in CASES[:3]] + [CASES[0].label]
    assert ["control_ms" in record for record in eight] == [True, False, False]
    assert len(eight[0]["control_ms"]) == len(eight[0]["samples_ms"])
    for record, ms in zip(eight, (12.0, 7.0, 6.0), strict=True):
        assert record["median_ms"] == pytest.approx(ms, rel=0.1)
        assert record["pair_processes"] == LEAST
        assert record["pair_cut"] is False


ALIKE = [Case("smi", batch=8, dim=16, hyperparameters={"lambda_": x}) for x in (1.0, 2.0, 3.0)]


def test_what_was_sampled_alone_before_is_sampled_anew_in_turn(tmp_path, fake_worker):
    path = tmp_path / "run.jsonl"
    progress = Quiet()
    writer, _ = open_run(path, "cpu")
    alone = {"moments": 1, "taken_shares": [0.1] * 3}
    with writer:
        sweep(ALIKE, writer, Limits(), progress)
        for record in list(writer.records.values()):
            writer.append({**record, "samples_ms": [1.0, 2.0, 3.0], **alone})
    outcome, _ = run(path, ALIKE)
    for record in outcome.records:
        assert record["pair_group"]
        assert not {*alone} & {*record}


def test_cases_that_are_alike_have_further_processes(tmp_path, fake_worker):
    """To tell that they differ by less than 5% takes them all, of few rounds of noisy calls."""
    fake_worker.noise = [0.03]
    fake_worker.call_ms = {"smi": 400.0}  # so that few rounds fit in the time of a group
    outcome, _ = run(tmp_path / "run.jsonl", ALIKE)
    count = len(fake_worker.comparisons)
    assert LEAST < count <= PROCESSES["cpu"]
    assert outcome.records[0]["pair_processes"] == count  # what the others are compared with
    assert fake_worker.stops[: count - 1] == list(range(1, count))  # each but the first is fresh


def test_further_rounds_are_of_what_is_open_and_of_what_it_is_compared_with(tmp_path, fake_worker):
    others = [replace(BASE, loss=loss, implementation="gram") for loss in ("nt_xent", "vicreg")]
    cases = [BASE, replace(BASE, implementation="gram"), *others]
    fake_worker.noise = [0.04]
    fake_worker.call_ms = dict.fromkeys(("smi", "vicreg", "nt_xent"), 300.0)
    outcome, _ = run(tmp_path / "run.jsonl", cases)
    later = {label for compared in fake_worker.comparisons[LEAST:] for label in compared}
    assert later == {cases[0].label, cases[1].label}  # as quick as each other
    counts = [len(record["samples_ms"]) for record in outcome.records]
    assert counts[0] == counts[1] > counts[2] == counts[3]
    assert not any(record["pair_cut"] for record in outcome.records)


def test_long_calls_are_looked_at_as_often_as_there_is_time_for(tmp_path, fake_worker):
    """After two rounds of 13 s there are 6 s: for more of the quickest, not of the slowest."""
    fake_worker.call_ms = {"smi": 100.0, "nt_xent": 1400.0, "vicreg": 5000.0}
    cases = [BASE, *(replace(BASE, loss=loss) for loss in ("nt_xent", "vicreg"))]
    outcome, _ = run(tmp_path / "run.jsonl", cases)
    assert [record["pair_looks"] for record in outcome.records] == [LOOKS, 3, 1]
    quick, _ = run(tmp_path / "quick.jsonl", ALIKE)
    assert {record["pair_processes"] for record in quick.records} <= set(range(2, 6))
    assert {record["pair_looks"] for record in quick.records} == {PROCESSES["cpu"] - LEAST + 1}


def test_quick_cases_beside_slow_ones_have_more_rounds_before_the_first_look(tmp_path, fake_worker):
    """As many as fit into half of the time for further rounds."""
    fake_worker.noise = [1e-6]
    fake_worker.call_ms = {"smi": 5000.0, "nt_xent": 100.0, "vicreg": 900.0}
    cases = [BASE, *(replace(BASE, loss=loss) for loss in ("nt_xent", "vicreg"))]
    outcome, _ = run(tmp_path / "run.jsonl", cases)
    assert len(fake_worker.comparisons) == 1
    counts = [len(record["samples_ms"]) for record in outcome.records]
    assert counts == [MIN_ROUNDS, QUICK_ROUNDS, QUICK_ROUNDS]
    assert len(outcome.records[1]["control_ms"]) == QUICK_ROUNDS
    fake_worker.call_ms = {"smi": 5000.0, "nt_xent": 1100.0, "vicreg": 1100.0}
    outcome, _ = run(tmp_path / "long.jsonl", cases)
    assert {len(record["samples_ms"]) for record in outcome.records} == {MIN_ROUNDS}
    # what may be visited again has as many rounds as the others: they are compared by their number
    fake_worker.call_ms = {"smi": 5000.0, "nt_xent": 100.0, "vicreg": 1100.0}
    outcome, _ = run(tmp_path / "again.jsonl", cases)
    assert {len(record["samples_ms"]) for record in outcome.records} == {MIN_ROUNDS}


def test_long_rounds_have_all_their_sittings_in_one_process(tmp_path, fake_worker):
    fake_worker.noise = [0.03]
    fake_worker.call_ms = {"smi": 500.0}
    outcome, _ = run(tmp_path / "run.jsonl", ALIKE)
    assert 1 < len(fake_worker.comparisons) <= LOOKS
    assert fake_worker.stops[:1] == [len(fake_worker.comparisons)]
    counts = [len(record["samples_ms"]) for record in outcome.records]
    assert max(counts) >= 2 * MIN_ROUNDS
    assert len({counts[0], max(counts)}) == 1  # of what the others are compared with
    assert {record["pair_processes"] for record in outcome.records} == {1}


def test_times_in_turn_are_held_against_the_ceilings(tmp_path, monkeypatch, fake_worker):
    evaluate = FakeWorker.evaluate

    def told(self, *arguments, **how):
        return {**evaluate(self, *arguments, **how), "ceiling_ms": 6.5}

    monkeypatch.setattr(FakeWorker, "evaluate", told)
    fake_worker.noise = [0.0]
    records = run(tmp_path / "run.jsonl", CASES[:3])[0].records
    shares = [record["fraction_of_ceiling"] for record in records]
    assert shares == pytest.approx([6.5 / 12, 6.5 / 7, 1])
    raised = [record["ceiling_raised"] for record in records]
    assert raised == pytest.approx([0, 0, 6.5 / 6 - 1])
    assert ["calibration" in record for record in records] == [False, False, True]


def test_run_twice_measures_nothing_twice(tmp_path, fake_worker):
    first, _ = run(tmp_path / "run.jsonl")
    second, events = run(tmp_path / "run.jsonl")
    assert second.measured == 0
    assert events == [("skip", case.loss) for case in CASES]
    assert second.records == first.records


class Killed(BaseException):
    pass


@pytest.mark.parametrize("appended", range(1, 18))
def test_a_run_that_was_killed_at_any_line_is_completed(
    tmp_path, monkeypatch, fake_worker, appended
):
    """Of two groups of three: an evaluation of each case, then one record a process and case."""
    path = tmp_path / "run.jsonl"
    append, lines = Writer.append, []

    def killed(self, record):
        append(self, record)
        lines.append(record["key"])
        if len(lines) == appended:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "append", killed)
        patch.setattr(Writer, "__exit__", lambda self, *_: self._file.close())
        with pytest.raises(Killed):
            run(path)
    held = read(path).records
    assert [record["key"] for record in held] == list(dict.fromkeys(lines))
    assert {record["status"] for record in held} == {"ok"}
    evaluated = len(held)
    monkeypatch.setattr(
        FakeWorker, "evaluate", counted := Counted(FakeWorker.evaluate), raising=True
    )
    completed, _ = run(path)
    assert counted.calls == 6 - evaluated  # nothing is evaluated twice
    for some in (completed.records[:3], completed.records[3:]):
        assert len({record["pair_group"] for record in some}) == 1
        assert {record["pair_processes"] for record in some} == {LEAST}
        assert not any(record["pair_cut"] for record in some)
    assert len(path.read_bytes().splitlines()) == 1 + 6  # what no longer counts is gone


class Counted:
    def __init__(self, function):
        self.function, self.calls = function, 0

    def __get__(self, owner, _):
        def call(*arguments, **options):
            self.calls += 1
            return self.function(owner, *arguments, **options)

        return call


def test_a_group_that_does_not_fit_in_the_budget_is_evaluated_and_that_is_said(
    tmp_path, monkeypatch, fake_worker
):
    monkeypatch.setattr(groups, "processes", lambda visits_s, device, left_s=9e9: int(left_s > 1e9))
    monkeypatch.setattr(FakeWorker, "compare", None)
    outcome, events = run(tmp_path / "run.jsonl", CASES[:3], limits=Limits(budget_s=1e6))
    assert (outcome.measured, outcome.left) == (0, 3)
    assert {record["status"] for record in outcome.records} == {"ok"}
    (line,) = [said for event, said in events if event == "tell"]
    assert line.startswith("little is left of the budget: 3 cases are not timed in turn, from ")


def test_the_slowest_keeps_the_time_of_its_evaluation_so_that_others_are_compared(
    tmp_path, fake_worker
):
    fake_worker.call_ms = dict.fromkeys(LOSSES, 100.0) | {"nt_xent": 12000.0}
    limits = Limits(budget_s=10.0)
    outcome, events = run(tmp_path / "run.jsonl", CASES[:3], limits=limits)
    assert {case for compared in fake_worker.comparisons for case in compared} == {
        CASES[0].label,
        CASES[2].label,
    }
    assert [record.get("pair_cut") for record in outcome.records] == [False, None, False]
    assert {record["status"] for record in outcome.records} == {"ok"}
    assert (outcome.measured, outcome.left) == (2, 1)
    (line,) = [said for event, said in events if event == "tell"]
    assert line.startswith("little is left of the budget: 1 case is not timed in turn, from ")


def test_the_slowest_is_visited_once_where_the_others_have_two_rounds(tmp_path, fake_worker):
    fake_worker.call_ms = dict.fromkeys(LOSSES, 3000.0) | {"nt_xent": 7000.0}
    limits = Limits(budget_s=24.0)
    outcome, events = run(tmp_path / "run.jsonl", CASES[:3], limits=limits)
    counts = [len(record["samples_ms"]) for record in outcome.records]
    assert counts[1] == 1
    assert min(counts[0], counts[2]) >= MIN_ROUNDS
    assert len({record["pair_group"] for record in outcome.records}) == 1
    assert (outcome.measured, outcome.left) == (3, 0)
    (line,) = [said for event, said in events if event == "tell"]
    assert line.startswith("little is left of the budget: 1 case is timed in one round, from ")


@pytest.mark.parametrize(
    ("call_ms", "budget_s", "visits"),
    [
        ({"nt_xent": 5000.0}, 15.0, 1),  # 50 times as long as the others: two rounds leave no time
        ({"nt_xent": 5000.0}, 30.0, 2),
        ({"nt_xent": 5000.0, "smi": 2500.0}, 19.0, 2),  # twice as long: one might not settle it
    ],
)
def test_what_is_clear_leaves_its_second_round_to_others(
    tmp_path, fake_worker, call_ms, budget_s, visits
):
    fake_worker.call_ms = dict.fromkeys(LOSSES, 100.0) | {"smi": 100.0} | call_ms
    cases = [*CASES[:3], replace(CASES[0], loss="smi")]
    outcome, events = run(tmp_path / "run.jsonl", cases, limits=Limits(budget_s=budget_s))
    samples = {record["loss"]: record["samples_ms"] for record in outcome.records}
    assert len(samples["nt_xent"]) == visits
    assert min(len(samples[loss]) for loss in ("smi", "barlow_twins")) >= MIN_ROUNDS
    assert not [said for event, said in events if event == "tell"]


def test_before_a_case_is_left_out_those_that_are_not_clear_are_visited_once(tmp_path, fake_worker):
    """Two rounds of 3 s, 4 s and a control take 20 s, one of the long ones 35 s more."""
    fake_worker.call_ms = {"smi": 3000.0, "barlow_twins": 4000.0, "nt_xent": 15e3, "vicreg": 20e3}
    cases = [replace(BASE, loss=loss) for loss in fake_worker.call_ms]
    outcome, events = run(tmp_path / "run.jsonl", cases, limits=Limits(budget_s=45.0))
    assert [len(record["samples_ms"]) for record in outcome.records] == [2, 1, 1, 1]
    (line,) = [said for event, said in events if event == "tell"]
    assert line.startswith("little is left of the budget: 3 cases are timed in one round, from ")


def test_what_is_clear_by_a_case_that_is_left_out_is_not_clear(tmp_path, fake_worker, monkeypatch):
    """By the first of three, that is: the third is then compared with the second."""
    monkeypatch.setattr(Clock, "allows", lambda *_: True)
    fake_worker.call_ms = {"vicreg": 20e3, "nt_xent": 1500.0, "barlow_twins": 1600.0}
    cases = [replace(BASE, loss=loss) for loss in fake_worker.call_ms]
    outcome, _ = run(tmp_path / "run.jsonl", cases, limits=Limits(budget_s=10.0))
    vicreg, *others = (record.get("pair_processes") for record in outcome.records)
    assert (vicreg, others) == (None, [1, 1])
    assert [len(record["samples_ms"]) for record in outcome.records[1:]] == [2, 2]


def test_what_other_work_made_long_is_not_clear(tmp_path, fake_worker, monkeypatch):
    fake_worker.call_ms = dict.fromkeys(LOSSES, 100.0) | {"nt_xent": 5000.0}
    evaluate = FakeWorker.evaluate
    for disturbed, visits in ((0, 1), (1, 2)):

        def told(*arguments, disturbed=disturbed, **how):
            return {**evaluate(*arguments, **how), "disturbed": disturbed}

        monkeypatch.setattr(FakeWorker, "evaluate", told)
        limits = Limits(budget_s=15.0)
        outcome, _ = run(tmp_path / f"{disturbed}.jsonl", CASES[:3], limits=limits)
        assert len(outcome.records[1]["samples_ms"]) == visits


def test_verdicts_are_looked_at_no_more_often_than_was_planned(tmp_path, fake_worker, monkeypatch):
    """Or what is claimed were wrong more often than is said."""
    looks = {}

    def counted(contender, baseline, planned, *known):
        pair = id(contender), id(baseline)
        looks[pair] = looks.get(pair, 0) + 1
        assert looks[pair] <= planned
        return ratios.is_open(contender, baseline, planned, *known)

    monkeypatch.setattr(sittings, "is_open", counted)
    fake_worker.noise = [0.2]
    for number, call_ms in enumerate((100.0, 500.0, 1200.0, 3000.0)):
        looks.clear()
        fake_worker.call_ms = {"smi": call_ms, "vicreg": 2.5 * call_ms}
        cases = [*ALIKE, replace(BASE, loss="vicreg")]
        run(tmp_path / f"{number}.jsonl", cases)
        assert looks


def test_one_that_is_visited_once_does_not_end_the_rounds_of_others(tmp_path, fake_worker):
    """Both quick ones take about 7 ms: their verdict is open after two rounds."""
    quick = [replace(BASE, loss="nt_xent"), replace(BASE, loss="nt_xent", implementation="gram")]
    slow = replace(BASE, loss="vicreg")
    fake_worker.noise = [0.04]
    fake_worker.call_ms = {"nt_xent": 100.0, "vicreg": 7000.0}
    outcome, _ = run(tmp_path / "run.jsonl", [*quick, slow], limits=Limits(budget_s=10.0))
    counts = [len(record["samples_ms"]) for record in outcome.records]
    assert counts[2] == 1
    assert counts[0] == counts[1] > MIN_ROUNDS
    assert not any(record["pair_cut"] for record in outcome.records)


def test_a_resumed_run_keeps_what_is_known_where_the_budget_is_short(tmp_path, fake_worker):
    path = tmp_path / "run.jsonl"
    run(path, CASES[:2])
    outcome, _ = run(path, CASES[:3], limits=Limits(budget_s=-1.0))
    assert [record["status"] for record in outcome.records] == ["ok", "ok", "timeout"]
    assert len({record["pair_group"] for record in outcome.records[:2]}) == 1  # as before
    whole, _ = run(path, CASES[:3])
    assert sum("control_ms" in record for record in whole.records) == 1


def test_a_group_leaves_later_ones_the_time_that_they_need(tmp_path, fake_worker):
    """By the speed so far, a case whose Gram is 71 times as wide takes 4 calls of 5 s."""
    later = Case("smi", batch=570, dim=16)
    fake_worker.noise = [0.03]
    fake_worker.call_ms = {"smi": 500.0}
    rounds = []
    for name, cases in (("alone", ALIKE), ("before", [*ALIKE, later])):
        outcome, _ = run(tmp_path / name, cases, limits=Limits(budget_s=22.0))
        rounds.append(len(outcome.records[0]["samples_ms"]))
    assert rounds[0] > rounds[1] >= MIN_ROUNDS


def test_the_first_rounds_of_a_group_go_before_later_ones():
    room = Room(lambda: 100.0, later_s=90.0)
    assert [room.seconds(wanted_s) for wanted_s in (5.0, 20.0, 200.0)] == [10.0, 20.0, 100.0]
    assert [room.is_short(wanted_s) for wanted_s in (5.0, 20.0, 200.0)] == [False, True, True]


def test_cases_that_are_right_or_wrong_are_not_timed_in_turn(tmp_path, fake_worker):
    cases = [replace(case, stage="check") for case in CASES[:3]]
    outcome, _ = run(tmp_path / "run.jsonl", cases)
    assert outcome.measured == 3
    assert fake_worker.comparisons == []
    again, _ = run(tmp_path / "run.jsonl", cases)
    assert again.measured == 0


def test_stages_are_timed_apart():
    late = [replace(case, stage="rest") for case in CASES[:3]]
    assert group([*CASES[:3], *late]) == [CASES[:3], late]


def test_times_that_were_not_paired_are_measured_again(tmp_path, fake_worker):
    path = tmp_path / "run.jsonl"
    alone, _ = run(path, paired=False)
    assert not any("pair_group" in record for record in alone.records)
    assert fake_worker.comparisons == []
    paired, _ = run(path)
    assert paired.measured == len(CASES)
    assert all("pair_group" in record for record in paired.records)
    again, _ = run(path, paired=False)
    assert again.measured == 0  # paired times are times
    assert again.records == paired.records


def test_a_new_case_of_a_group_is_compared_with_all_of_it(tmp_path, fake_worker):
    path = tmp_path / "run.jsonl"
    run(path, CASES[:2])
    outcome, _ = run(path, CASES[:3])
    assert outcome.measured == 3
    assert len({record["pair_group"] for record in outcome.records}) == 1


def test_errors_that_were_not_asked_for_are_measured_later(tmp_path, fake_worker):
    run(tmp_path / "run.jsonl")
    outcome, _ = run(tmp_path / "run.jsonl", errors=True)
    assert outcome.measured == len(CASES)
    assert {record["accuracy"] for record in outcome.records} == {"measured"}


def test_a_case_that_is_wrong_is_not_timed_and_the_others_are(tmp_path, fake_worker):
    fake_worker.broken = {"nt_xent": {"status": "invalid", "reason": "the value is 2"}}
    outcome, _ = run(tmp_path / "run.jsonl", CASES[:3])
    assert [record["status"] for record in outcome.records] == ["ok", "invalid", "ok"]
    assert "pair_group" not in outcome.records[1]
    assert outcome.records[1]["reason"] == "the value is 2"
    assert outcome.records[0]["pair_group"] == outcome.records[2]["pair_group"]
    again, _ = run(tmp_path / "run.jsonl", CASES[:3])
    assert again.measured == 0


def test_a_group_in_which_nothing_is_right_is_not_tried_for_ever(tmp_path, fake_worker):
    wrong = {"status": "invalid", "reason": "the value is 2"}
    fake_worker.broken = dict.fromkeys(LOSSES, wrong)
    run(tmp_path / "run.jsonl", CASES[:3])
    again, _ = run(tmp_path / "run.jsonl", CASES[:3])
    assert again.measured == 0


@pytest.mark.parametrize("sitting", [1, 2])
def test_a_comparison_that_fails_says_so_and_is_tried_again(
    tmp_path, monkeypatch, fake_worker, sitting
):
    working = FakeWorker.compare

    def fail(self, cases, rounds, timeout_s, scales=None):
        found = working(self, cases, rounds, timeout_s, scales)
        fails = len(self.comparisons) == sitting
        return {"status": "oom", "reason": "killed by the system"} if fails else found

    with monkeypatch.context() as patch:
        patch.setattr(FakeWorker, "compare", fail)
        outcome, _ = run(tmp_path / "run.jsonl", CASES[:3])
    reasons = {(record["status"], record["reason"]) for record in outcome.records}
    assert reasons == {("oom", "in paired timing: killed by the system")}
    times = ("median_ms", "samples_ms", "cpu_shares", "disturbed", "retaken", "drift", "control_ms")
    times += ("taken_shares",)
    assert not any(name in record for record in outcome.records for name in times)
    again, _ = run(tmp_path / "run.jsonl", CASES[:3])
    assert again.measured == 3
    assert {record["status"] for record in again.records} == {"ok"}


def test_a_contender_that_ends_a_comparison_leaves_the_others_unaffected(
    tmp_path, monkeypatch, fake_worker
):
    working = FakeWorker.compare

    def hang(self, cases, rounds, timeout_s, scales=None):
        if any(case.contender for case in cases):
            return {"status": "timeout", "reason": "not finished after 600 s"}
        return working(self, cases, rounds, timeout_s, scales)

    monkeypatch.setattr(FakeWorker, "compare", hang)
    third = replace(CASES[0], implementation="hangs", contender="third_party:scaled")
    outcome, _ = run(tmp_path / "run.jsonl", [*CASES[:3], third])
    *ours, contender = outcome.records
    assert {record["status"] for record in ours} == {"ok"}
    assert len({record["pair_group"] for record in ours}) == 1
    assert contender["status"] == "timeout"
    assert contender["reason"] == "in paired timing: not finished after 600 s"


def test_what_is_wrong_after_it_was_timed_is_invalid(tmp_path, monkeypatch, fake_worker):
    working = FakeWorker.compare

    def go_wrong(self, cases, rounds, timeout_s, scales=None):
        found = working(self, cases, rounds, timeout_s, scales)
        if scales is not None:
            found["checks"][1] = {"status": "invalid", "reason": "the value is 2"}
        return found

    monkeypatch.setattr(FakeWorker, "compare", go_wrong)
    outcome, _ = run(tmp_path / "run.jsonl", CASES[:3])
    assert [record["status"] for record in outcome.records] == ["ok", "invalid", "ok"]
    assert outcome.records[1]["reason"] == "after it was timed, the value is 2"


def test_what_the_budget_leaves_out_is_completed(tmp_path, fake_worker):
    outcome, _ = run(tmp_path / "run.jsonl", limits=Limits(budget_s=0))
    assert (outcome.measured, outcome.left) == (0, 6)
    assert fake_worker.comparisons == []
    outcome, _ = run(tmp_path / "run.jsonl")
    assert (outcome.measured, outcome.left) == (6, 0)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A paired sweep through real processes, of one case of another shape and one that raises."""
    path = tmp_path_factory.mktemp("paired") / "run.jsonl"
    raises = replace(COMPARABLE[-1], implementation="raises", contender="third_party:raises")
    cases = [*COMPARABLE, raises]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "MAX_ROUNDS", MIN_ROUNDS)  # the parent makes the plan
        outcome, _ = run(path, cases)
    return path, cases, outcome


@pytest.mark.long
def test_cases_of_a_real_group_share_rounds_and_processes(real):
    _, _, outcome = real
    *right, raises = outcome.records
    assert {record["status"] for record in right} == {"ok"}, [r["reason"] for r in right]
    assert len({record["pair_group"] for record in right}) == 1
    for record in right:
        assert 1 <= record["pair_processes"] <= PROCESSES["cpu"]
        assert len(record["samples_ms"]) == record["pair_processes"] * MIN_ROUNDS
    assert sum("control_ms" in record for record in right) == 1
    assert raises["status"] == "error"
    assert "pair_group" not in raises


@pytest.mark.long
def test_a_real_paired_run_is_not_measured_again(real):
    path, cases, outcome = real
    assert len(read(path).records) == len(cases)
    again, events = run(path, cases[:-1])
    assert again.measured == 0
    assert {event for event, _ in events} == {"skip"}
    assert again.records == outcome.records[:-1]
