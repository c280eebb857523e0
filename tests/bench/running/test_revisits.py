"""Cases that are timed alone: each at several moments, with others in between."""

from collections import deque

import pytest

from lossbench.bench.cases.case import Case
from lossbench.bench.measuring.timing import summarise
from lossbench.bench.records.fields import record_problem
from lossbench.bench.running.revisits import Revisits

LOSSES = ("barlow_twins", "nt_xent", "smi", "vicreg")


class Bench:
    """Stands in for what measures, and says in which order it did."""

    def __init__(self, answers=(), over=False):
        self.events, self.ended, self.over = [], [], over
        self._answers = deque(answers)
        self.again = Revisits(self, 9.0, lambda: self.over, self.start, self.end)

    def start(self, case):
        self.events.append(("visit", case.loss))

    def end(self, case, record):
        self.events.append(("end", case.loss))
        self.ended.append(record)

    def stop(self):
        self.events.append(("stop", ""))

    def sample_again(self, case, count, best_ms, timeout_s):
        answer = self._answers.popleft() if self._answers else {}
        told = {"samples_ms": [best_ms] * count, "cpu_shares": [1.9] * count, "disturbed": 1}
        return answer or told

    def evaluate(self, loss, samples=(5.0, 4.0), **fields):
        self.events.append(("evaluate", loss))
        beside = {"cpu_shares": [2.0] * len(samples), "disturbed": 0, "visits": 1}
        record = {"key": loss, "status": "ok", **summarise(samples), **beside, **fields}
        self.again.add(Case(loss), record)
        return record


def test_other_cases_come_between_the_visits_of_a_case():
    bench = Bench()
    for loss in "smi", "vicreg", "nt_xent":
        bench.evaluate(loss)
    bench.again.finish()
    assert [f"{what} {loss}" for what, loss in bench.events] == [
        *("evaluate smi", "evaluate vicreg", "visit smi"),
        *("evaluate nt_xent", "visit smi", "visit vicreg", "end smi"),
        *("visit vicreg", "visit nt_xent", "end vicreg", "visit nt_xent", "end nt_xent"),
    ]


def test_a_record_holds_the_samples_of_all_visits_in_their_order():
    bench = Bench([{"samples_ms": [7.0, 8.0], "cpu_shares": [0.5, 0.6], "disturbed": 2}])
    record = bench.evaluate("smi")
    bench.again.finish()
    assert bench.ended == [record]
    assert record["samples_ms"] == [5.0, 4.0, 7.0, 8.0, 4.0, 4.0]
    assert record["cpu_shares"] == [2.0, 2.0, 0.5, 0.6, 1.9, 1.9]
    assert (record["median_ms"], record["disturbed"], record["visits"]) == (4.5, 3, 3)
    assert record_problem(record) is None


def test_a_slow_case_is_visited_twice():
    bench = Bench()
    record = bench.evaluate("smi", samples=(9000.0,))
    bench.again.finish()
    assert (record["samples_ms"], record["visits"]) == ([9000.0, 9000.0], 2)


@pytest.mark.parametrize(
    "record",
    [
        {"status": "invalid", "reason": "", "samples_ms": [1.0], "visits": 1},
        {"status": "ok", "reason": ""},
    ],
)
def test_what_is_not_right_or_was_not_sampled_is_not_visited(record):
    bench = Bench()
    bench.again.add(Case("smi"), {"key": "smi", **record})
    bench.again.finish()
    assert bench.events == [("end", "smi")]


def test_a_visit_that_fails_leaves_what_is_known():
    failed = {"status": "timeout", "reason": "not finished after 9 s"}
    bench = Bench([{}, failed])
    record = bench.evaluate("smi")
    bench.again.finish()
    assert (record["status"], record["visits"], len(record["samples_ms"])) == ("ok", 2, 4)
    assert bench.events.count(("visit", "smi")) == 2


def test_a_process_that_a_visit_broke_is_replaced():
    bench = Bench([{"status": "error", "reason": "CUDA error: an illegal memory access"}])
    bench.evaluate("smi")
    bench.again.finish()
    assert bench.events[-2:] == [("stop", ""), ("end", "smi")]


def test_without_time_no_case_is_visited_and_all_end():
    bench = Bench(over=True)
    for loss in LOSSES:
        bench.evaluate(loss)
    bench.again.finish()
    assert [loss for what, loss in bench.events if what == "end"] == list(LOSSES)
    assert not any(what == "visit" for what, _ in bench.events)
