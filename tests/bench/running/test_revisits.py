"""Cases that are timed alone: each at several moments, with others in between."""

from collections import deque

import pytest

from lossbench.bench.cases.case import Case
from lossbench.bench.measuring.timing import summarise
from lossbench.bench.records.fields import record_problem
from lossbench.bench.running.revisits import Revisits

SHARES = {"cpu_shares": 2.0, "taken_shares": 0.0}
LOSSES = ("barlow_twins", "nt_xent", "smi", "vicreg")


def told(samples, taken=0.0):
    beside = {name: [share] * len(samples) for name, share in SHARES.items()}
    return {"samples_ms": list(samples), **beside, "taken_shares": [taken] * len(samples)}


class Bench:
    """Stands in for what measures, and says in which order it did.

    Args:
        answers: of the first visits; later ones find the first samples again.
        left_s: of a budget.
    """

    def __init__(self, answers=(), left_s=1e9):
        self.events, self.ended, self.left_s = [], [], left_s
        self.saved, self.failures = [], []
        self._answers = deque(answers)
        self.again = Revisits(
            self,
            9.0,
            lambda: self.left_s,
            lambda case: self.events.append(("visit", case.loss)),
            lambda case, why: self.failures.append((case.loss, why)),
            lambda record: self.saved.append(dict(record)),
            self.end,
        )

    def end(self, case, record):
        self.events.append(("end", case.loss))
        self.ended.append(record)

    def stop(self):
        self.events.append(("stop", ""))

    def sample_again(self, case, count, timeout_s):
        return self._answers.popleft() if self._answers else told([5.0] * count)

    def evaluate(self, loss, samples=(5.0, 4.0), **fields):
        self.events.append(("evaluate", loss))
        record = {"key": loss, "status": "ok", **summarise(samples), **told(samples), "moments": 1}
        record |= {"disturbed": 0, **fields}
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


def test_a_record_holds_the_samples_of_all_moments_in_their_order():
    bench = Bench([told([7.0, 8.0], taken=0.5)])
    record = bench.evaluate("smi")
    bench.again.finish()
    assert bench.ended == [record]
    assert record["samples_ms"] == [5.0, 4.0, 7.0, 8.0, 5.0, 5.0]
    assert record["taken_shares"] == [0, 0, 0.5, 0.5, 0, 0]
    assert len(record["cpu_shares"]) == 6
    assert (record["median_ms"], record["disturbed"], record["moments"]) == (5.0, 2, 3)
    assert [(each["moments"], len(each["samples_ms"])) for each in bench.saved] == [(2, 4), (3, 6)]
    assert record_problem(record) is None


def test_a_moment_is_disturbed_by_what_a_later_one_shows():
    bench = Bench([told([1.0, 1.0])])
    record = bench.evaluate("smi")
    bench.again.finish()
    assert record["disturbed"] == 4  # 5.0, 4.0, 5.0, 5.0


def test_of_a_gpu_all_moments_say_whether_work_was_launched_ahead_and_clocks_were_lowered():
    later = {"samples_ms": [5.0, 5.0], "launched_ahead": False, "throttled": "SwPowerCap"}
    bench = Bench([later, {**later, "launched_ahead": True, "throttled": ""}])
    record = bench.evaluate("smi", launched_ahead=True, throttled="")
    bench.again.finish()
    assert (record["launched_ahead"], record["throttled"]) == (False, "SwPowerCap")


def test_a_slow_case_is_visited_twice():
    bench = Bench()
    record = bench.evaluate("smi", samples=(9000.0,))
    bench.again.finish()
    assert (len(record["samples_ms"]), record["moments"]) == (2, 2)


@pytest.mark.parametrize(
    "record",
    [
        {"status": "invalid", "reason": "", "samples_ms": [1.0], "moments": 1},
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
    bench = Bench([told([5.0, 5.0]), failed])
    record = bench.evaluate("smi")
    bench.again.finish()
    assert (record["status"], record["moments"], len(record["samples_ms"])) == ("ok", 2, 4)
    assert bench.events.count(("visit", "smi")) == 2
    assert bench.failures == [("smi", failed["reason"])]


def test_a_process_that_a_visit_broke_is_replaced():
    bench = Bench([{"status": "error", "reason": "CUDA error: an illegal memory access"}])
    bench.evaluate("smi")
    bench.again.finish()
    assert bench.events[-2:] == [("stop", ""), ("end", "smi")]


def test_without_time_for_its_samples_no_case_is_visited_and_all_end():
    bench = Bench(left_s=0.009)
    for loss in LOSSES:
        bench.evaluate(loss)
    bench.again.finish()
    assert [loss for what, loss in bench.events if what == "end"] == list(LOSSES)
    assert not any(what == "visit" for what, _ in bench.events)


def test_of_what_is_left_as_much_is_visited_as_fits():
    bench = Bench(left_s=0.01)
    for samples, loss in ((6.0, 6.0), "smi"), ((4.0, 4.0), "vicreg"):
        bench.evaluate(loss, samples)
    bench.again.finish()
    assert {loss for what, loss in bench.events if what == "visit"} == {"vicreg"}
