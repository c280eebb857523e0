"""Groups of cases that may be compared, timed in turn across fresh processes."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from lossbench.bench.cases.case import Case
from lossbench.bench.cases.suites import ALONE
from lossbench.bench.comparing.ratios import noise
from lossbench.bench.measuring.timing import VISIT_MS, summarise
from lossbench.bench.records.environment import content_hash
from lossbench.bench.running.budget import START_S
from lossbench.bench.running.worker import Worker

PROCESSES = {"cpu": 5, "cuda": 2}
"""The interval over three has to be nearly three times as long as theirs spread. On a GPU, where
times repeat, two show whether they do, and each takes seconds to start."""
TARGET_S = {"cpu": 16.0, "cuda": 6.0}
"""Time for the rounds of a group; one whose rounds are long is compared in one process."""
QUICK = 0.1
"""Cases that take up to this share of a round are quick: they have further rounds ..."""
QUICK_S = {"cpu": 6.0, "cuda": 3.0}
"""... for this long, so that a slow case does not leave the others unresolved."""
MIN_ROUNDS, MAX_ROUNDS = 2, 20
TIMES = ("median_ms", "p20_ms", "p80_ms", "samples_ms")
PAIRS = ("pair_group", "pair_processes", "pair_planned", "pair_noise")


def group(cases: Sequence[Case]) -> list[list[Case]]:
    """Cases of a stage that see batches of one shape, dtype and kind, in order of their first."""
    groups: dict[tuple[Any, ...], list[Case]] = {}
    for number, case in enumerate(cases):
        shape = (case.loss_batch, case.dim, case.dtype, case.pass_, case.device, case.inputs)
        alone = number if case.stage in ALONE else None
        groups.setdefault((case.stage, alone, *shape), []).append(case)
    return list(groups.values())


def plan(
    visits_s: Sequence[float], device: str, left_s: float = float("inf")
) -> tuple[int, list[int]]:
    """Processes, and rounds of each case in each of them (even), of a group.

    Args:
        visits_s: how long a visit of each case takes.
        device: "cpu" or "cuda".
        left_s: of the budget.

    Returns:
        0 processes where not even the fewest rounds in one fit in the budget.
    """
    round_s = sum(visits_s)
    if MIN_ROUNDS * round_s > left_s:
        return 0, []
    processes, further_s = PROCESSES[device], (PROCESSES[device] - 1) * (START_S[device] + round_s)
    least_s = processes * MIN_ROUNDS * round_s
    if least_s > TARGET_S[device] or least_s + further_s > left_s:
        processes, further_s = 1, 0.0
    target_s = min(TARGET_S[device], left_s - further_s)
    rounds = _rounds(target_s, processes * round_s)
    spent_s = rounds * processes * round_s
    quick_s = sum(visit for visit in visits_s if visit <= QUICK * round_s)
    spare_s = min(QUICK_S[device], left_s - further_s - spent_s)
    further = _rounds(rounds * processes * quick_s + spare_s, processes * quick_s)
    return processes, [further if visit <= QUICK * round_s else rounds for visit in visits_s]


def _rounds(seconds: float, round_s: float) -> int:
    """How many fit."""
    fit = int(seconds / round_s) // 2 * 2 if round_s else MAX_ROUNDS
    return max(MIN_ROUNDS, min(MAX_ROUNDS, fit))


def compare(
    worker: Worker,
    cases: Sequence[Case],
    records: Sequence[dict[str, Any]],
    timeout_s: float,
    left_s: Callable[[], float],
    save: Callable[[], None],
) -> str:
    """Add paired times to the records of the cases that are right; the others stay as they are.

    The quickest case is timed twice in each round, as a case and as its own control: by how much
    the two differ is the threshold below which no difference is claimed.

    Args:
        worker: has just evaluated the cases; the first of the processes.
        cases: a group.
        records: its records, which are changed in place.
        timeout_s: for one process.
        left_s: of the budget.
        save: called after each process: what the records say is true then, of fewer processes.

    Returns:
        What the budget did not suffice for, "" if for nothing.
    """
    right = [i for i, record in enumerate(records) if record["status"] == "ok"]
    if not right:
        return ""
    visit_s = {i: max(records[i]["call_ms"], VISIT_MS) / 1e3 for i in right}
    quickest = min(right, key=visit_s.__getitem__)
    order = [*right, quickest]
    timed = [cases[i] for i in order]
    visits_s, device = [visit_s[i] for i in order], cases[0].device
    processes, rounds = plan(visits_s, device, left_s())
    wanted, _ = plan(visits_s, device)
    found: list[dict[str, Any]] = []
    for number in range(processes):
        if number:
            worker.stop()
        # The first process knows the fp64 truths already: there the outputs are checked again.
        scales = None if number else [records[i].get("scale", 1.0) for i in right]
        found.append(worker.compare(timed, rounds, timeout_s, scales))
        if "status" in found[-1]:
            _give_up(cases, records, right, found[-1])
            return compare(worker, cases, records, timeout_s, left_s, save)
        _note(cases, records, right, quickest, found, processes)
        save()
    if processes == wanted:
        return ""
    done = f"timed in {processes} processes, not {wanted}" if processes else "not timed in turn"
    return f"little is left of the budget: {len(right)} cases are {done}"


def _note(
    cases: Sequence[Case],
    records: Sequence[dict[str, Any]],
    right: Sequence[int],
    quickest: int,
    found: Sequence[dict[str, Any]],
    processes: int,
) -> None:
    """Put what was found so far into the records of the cases that were timed."""
    by_case = list(zip(*(process["samples_ms"] for process in found), strict=True))
    shared = {
        # unlike that of any other comparison, of the same cases too
        "pair_group": content_hash([time.time_ns(), *(cases[i].describe() for i in right)]),
        "pair_processes": len(found),
        "pair_planned": processes,
        "pair_noise": noise(by_case[right.index(quickest)], by_case[-1]),
    }
    for i, of_case in zip(right, by_case, strict=False):
        times = summarise([ms for process in of_case for ms in process])
        records[i].update({**times, **shared, **found[-1].get("state", {})})
    if len(found) == 1:
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
        for name in (*TIMES, *PAIRS):
            records[i].pop(name, None)


def is_complete(records: Sequence[dict[str, Any] | None]) -> bool:
    """Whether the records of a group were compared with one another, in all planned processes."""
    right = [record for record in records if record and record["status"] == "ok"]
    groups = {record.get("pair_group") for record in right}
    cut = any(r.get("pair_planned", 0) > r.get("pair_processes", 0) for r in right)
    return len(groups) <= 1 and None not in groups and not cut
