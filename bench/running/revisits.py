"""Cases that are timed alone are sampled at several moments, with other cases in between."""

from collections.abc import Callable
from typing import Any

from lossbench.bench.cases.case import Case
from lossbench.bench.measuring.timing import summarise, visits_again
from lossbench.bench.records.failures import is_broken
from lossbench.bench.running.worker import Worker

Record = dict[str, Any]


class Revisits:
    """Cases that wait for their next visit.

    Args:
        worker: evaluated them.
        timeout_s: for one visit.
        is_over: whether there is no time for more.
        start: told of each case that is about to be visited.
        end: told of each case that is visited no more, in the order in which they came.
    """

    def __init__(
        self,
        worker: Worker,
        timeout_s: float,
        is_over: Callable[[], bool],
        start: Callable[[Case], None],
        end: Callable[[Case, Record], None],
    ) -> None:
        self._worker, self._timeout_s, self._is_over = worker, timeout_s, is_over
        self._start, self._end = start, end
        self._waiting: list[tuple[Case, Record]] = []
        self._failed: set[str] = set()

    def add(self, case: Case, record: Record) -> None:
        """A case was just evaluated: those before it are visited, and it waits for the next."""
        self._visit()
        self._waiting.append((case, record))
        self._let_go()

    def finish(self) -> None:
        """No case comes any more."""
        while self._waiting:
            self._visit()
            self._let_go()

    def _visit(self) -> None:
        for case, record in self._waiting:
            if self._wants_more(record):
                self._start(case)
                if not _sample(self._worker, case, record, self._timeout_s):
                    self._failed.add(record["key"])

    def _let_go(self) -> None:
        """The first cases, as far as they want no more."""
        while self._waiting and not self._wants_more(self._waiting[0][1]):
            self._end(*self._waiting.pop(0))

    def _wants_more(self, record: Record) -> bool:
        if record["status"] != "ok" or record["key"] in self._failed or self._is_over():
            return False
        return "visits" in record and visits_again(record["samples_ms"], record["visits"])


def _sample(worker: Worker, case: Case, record: Record, timeout_s: float) -> bool:
    """Add a visit to a record; False if it failed: what is known stays."""
    before, visits = record["samples_ms"], record["visits"]
    found = worker.sample_again(case, len(before) // visits, min(before), timeout_s)
    if "status" in found:
        if is_broken(found):
            worker.stop()
        return False
    record.update(summarise([*before, *found.pop("samples_ms")]), visits=visits + 1)
    for name, value in found.items():  # a list beside each sample, or a number of samples
        record[name] = record[name] + value
    return True
