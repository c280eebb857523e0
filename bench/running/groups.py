"""Groups of cases that may be compared, timed in turn across fresh processes."""

import time
from collections.abc import Sequence
from typing import Any

from lossbench.bench.cases.case import Case
from lossbench.bench.comparing.ratios import noise
from lossbench.bench.measuring.timing import VISIT_MS, summarise
from lossbench.bench.records.environment import content_hash
from lossbench.bench.running.worker import Worker

PROCESSES = 5
"""The interval over three has to be nearly three times as long as theirs spread."""
TARGET_S = 16.0
"""Time for the rounds of a group; one whose rounds are long is compared in one process."""
QUICK = 0.1
"""Cases that take up to this share of a round are quick: they have further rounds ..."""
QUICK_S = 6.0
"""... for this long, so that a slow case does not leave the others unresolved."""
MIN_ROUNDS, MAX_ROUNDS = 2, 20


def group(cases: Sequence[Case]) -> list[list[Case]]:
    """Cases that see batches of one shape, dtype and kind, in order of their first case."""
    groups: dict[tuple[Any, ...], list[Case]] = {}
    for case in cases:
        key = (case.loss_batch, case.dim, case.dtype, case.pass_, case.device, case.inputs)
        groups.setdefault(key, []).append(case)
    return list(groups.values())


def plan(visits_s: Sequence[float]) -> tuple[int, list[int]]:
    """Processes, and rounds of each case in each of them (even), of a group.

    Args:
        visits_s: how long a visit of each case takes.
    """
    round_s = sum(visits_s)
    processes = PROCESSES if PROCESSES * MIN_ROUNDS * round_s <= TARGET_S else 1
    rounds = _rounds(TARGET_S, processes * round_s)
    quick_s = sum(visit for visit in visits_s if visit <= QUICK * round_s)
    further = _rounds(rounds * processes * quick_s + QUICK_S, processes * quick_s)
    return processes, [further if visit <= QUICK * round_s else rounds for visit in visits_s]


def _rounds(seconds: float, round_s: float) -> int:
    """How many fit."""
    fit = int(seconds / round_s) // 2 * 2 if round_s else MAX_ROUNDS
    return max(MIN_ROUNDS, min(MAX_ROUNDS, fit))


def compare(
    worker: Worker, cases: Sequence[Case], records: Sequence[dict[str, Any]], timeout_s: float
) -> None:
    """Add paired times to the records of the cases that are right; the others stay as they are.

    The quickest case is timed twice in each round, as a case and as its own control: by how much
    the two differ is the threshold below which no difference is claimed.

    Args:
        worker: has just evaluated the cases; the first of the processes.
        cases: a group.
        records: its records, which are changed in place.
        timeout_s: for one process.
    """
    right = [i for i, record in enumerate(records) if record["status"] == "ok"]
    if not right:
        return
    visit_s = {i: max(records[i]["call_ms"], VISIT_MS) / 1e3 for i in right}
    quickest = min(right, key=visit_s.__getitem__)
    order = [*right, quickest]
    timed = [cases[i] for i in order]
    processes, rounds = plan([visit_s[i] for i in order])
    found = []
    for number in range(processes):
        if number:
            worker.stop()
        # The first process knows the fp64 truths already: there the outputs are checked again.
        scales = None if number else [records[i].get("scale", 1.0) for i in right]
        found.append(worker.compare(timed, rounds, timeout_s, scales))
        if "status" in found[-1]:
            _give_up(cases, records, right, found[-1])
            compare(worker, cases, records, timeout_s)
            return
    by_case = list(zip(*(process["samples_ms"] for process in found), strict=True))
    shared = {
        # unlike that of any other comparison, of the same cases too
        "pair_group": content_hash([time.time_ns(), *(case.describe() for case in timed)]),
        "pair_processes": processes,
        "pair_noise": noise(by_case[right.index(quickest)], by_case[-1]),
    }
    for i, of_case in zip(right, by_case, strict=False):
        times = summarise([ms for process in of_case for ms in process])
        records[i].update({**times, **shared, **found[-1].get("state", {})})
    for i, said in zip(right, found[0]["checks"], strict=False):
        if said["status"] != "ok":
            reason = f"after it was timed, {said['reason']}"
            records[i].update(status=said["status"], reason=reason)


def _give_up(
    cases: Sequence[Case],
    records: Sequence[dict[str, Any]],
    right: Sequence[int],
    failure: dict[str, Any],
) -> None:
    """Mark what failed: third parties if there are any, so that ours are compared without them."""
    blamed = [i for i in right if cases[i].contender] or right
    for i in blamed:
        reason = f"in paired timing: {failure['reason']}"
        records[i].update(status=failure["status"], reason=reason)


def is_complete(records: Sequence[dict[str, Any] | None]) -> bool:
    """Whether the records of a group were compared with one another."""
    groups = {record.get("pair_group") for record in records if record and record["status"] == "ok"}
    return len(groups) <= 1 and None not in groups
