"""Cases that are timed alone are sampled at several moments, with other cases in between."""

from collections.abc import Callable
from typing import Any

from lossbench.bench.cases.case import Case
from lossbench.bench.measuring.disturbance import disturbed
from lossbench.bench.measuring.timing import has_further_moments, summarise
from lossbench.bench.records.failures import is_broken
from lossbench.bench.running.worker import Worker

Record = dict[str, Any]


class Revisits:
    """Cases that wait for their next visit.

    Args:
        worker: measures them.
        timeout_s: for one visit.
        left_s: seconds in which there may be visits.
        start: told of each case that is about to be visited.
        fail: told of each whose visit failed, and why.
        save: told of what is known after each visit.
        end: told of each case that is visited no more, in the order in which they came.
    """

    def __init__(
        self,
        worker: Worker,
        timeout_s: float,
        left_s: Callable[[], float],
        start: Callable[[Case], None],
        fail: Callable[[Case, str], None],
        save: Callable[[Record], None],
        end: Callable[[Case, Record], None],
    ) -> None:
        self._worker, self._timeout_s, self._left_s = worker, timeout_s, left_s
        self._start, self._fail, self._save, self._end = start, fail, save, end
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
            if self._is_due(record):
                self._start(case)
                self._sample(case, record)

    def _let_go(self) -> None:
        """The first cases, as far as they are due no more."""
        while self._waiting and not self._is_due(self._waiting[0][1]):
            self._end(*self._waiting.pop(0))

    def _is_due(self, record: Record) -> bool:
        if not wants_more(record) or record["key"] in self._failed:
            return False
        return self._left_s() > _count(record) * record["median_ms"] / 1e3

    def _sample(self, case: Case, record: Record) -> None:
        found = self._worker.sample_again(case, _count(record), self._timeout_s)
        if "status" in found:  # what is known stays
            self._failed.add(record["key"])
            self._fail(case, found["reason"])
            if is_broken(found):
                self._worker.stop()
            return
        _add(record, found)
        self._save(record)


def wants_more(record: Record) -> bool:
    """Whether a case was sampled at fewer moments than it should be."""
    if record["status"] != "ok" or "moments" not in record:
        return False
    return has_further_moments(record["samples_ms"], record["moments"])


def _count(record: Record) -> int:
    """Samples of a moment."""
    return len(record["samples_ms"]) // int(record["moments"])


def _add(record: Record, found: Record) -> None:
    """Add a moment to a record."""
    samples = [*record["samples_ms"], *found["samples_ms"]]
    for name in ("cpu_shares", "taken_shares"):
        if name in found:
            record[name] = [*record[name], *found[name]]
    if "taken_shares" in found:
        record["disturbed"] = disturbed(samples, record["taken_shares"])
    if "launched_ahead" in found:
        record["launched_ahead"] = record["launched_ahead"] and found["launched_ahead"]
    if found.get("throttled"):
        record["throttled"] = found["throttled"]
    record.update(summarise(samples), moments=record["moments"] + 1)
