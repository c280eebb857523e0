"""Groups of cases that may be compared, and how many rounds of visits they are given."""

from collections.abc import Mapping, Sequence
from typing import Any

from lossbench.bench.cases.case import Case
from lossbench.bench.cases.suites import ALONE
from lossbench.bench.running.budget import START_S

PROCESSES = {"cpu": 5, "cuda": 2}
"""At most. On a GPU, where times repeat, two show whether they do; each takes seconds to start."""
TARGET_S = {"cpu": 16.0, "cuda": 6.0}
"""Time for the rounds of a group; one whose rounds are long is compared in one process."""
FURTHER_S = {"cpu": 6.0, "cuda": 3.0}
"""Time after the first rounds, however long these were: a slow case must not leave quick ones
unresolved."""
MIN_ROUNDS, MAX_ROUNDS = 2, 20
QUICK_ROUNDS = 4
"""Rounds of quick cases before the first look, in one process: they cost little there, and what two
show of the noise is little."""
ABOUT = 1.1
"""A group whose fewest rounds take so much more than what is left of a budget is timed all the
same: how long they take is known from calls that were also profiled."""


def group(cases: Sequence[Case]) -> list[list[Case]]:
    """Cases of a stage that see batches of one shape, dtype and kind, in order of their first."""
    groups: dict[tuple[Any, ...], list[Case]] = {}
    for number, case in enumerate(cases):
        shape = (case.loss_batch, case.dim, case.dtype, case.pass_, case.device, case.inputs)
        alone = number if case.stage in ALONE else None
        groups.setdefault((case.stage, alone, *shape), []).append(case)
    return list(groups.values())


def processes(visits_s: Sequence[float], device: str, left_s: float = float("inf")) -> int:
    """Processes that a group is timed in, at most.

    Args:
        visits_s: how long a visit of each case takes.
        device: "cpu" or "cuda".
        left_s: of the budget.

    Returns:
        0 where not even the fewest rounds in one fit in the budget.
    """
    round_s, several = sum(visits_s), PROCESSES[device]
    if MIN_ROUNDS * round_s > ABOUT * left_s:
        return 0
    least_s = several * MIN_ROUNDS * round_s
    starts_s = (several - 1) * (START_S[device] + round_s)
    return 1 if least_s > TARGET_S[device] or least_s + starts_s > left_s else several


def end_s(visits_s: Sequence[float], device: str, left_s: float = float("inf")) -> float:
    """Seconds after which a group is given no further rounds, its first ones among them."""
    first_s = MIN_ROUNDS * sum(visits_s)
    return min(left_s, max(TARGET_S[device], first_s + FURTHER_S[device]))


def rounds(seconds: float, looks: int, visits_s: Sequence[float]) -> int:
    """Rounds of a sitting, to and fro, of which ``looks`` share the time; 0 if none fits in it."""
    round_s = sum(visits_s)
    if MIN_ROUNDS * round_s > seconds:
        return 0
    share = int(min(MAX_ROUNDS, seconds / looks / round_s))
    return max(MIN_ROUNDS, share // 2 * 2)


def is_complete(records: Sequence[Mapping[str, Any] | None]) -> bool:
    """Whether the records of a group were compared with one another until that had an end."""
    right = [record for record in records if record and record["status"] == "ok"]
    groups = {record.get("pair_group") for record in right}
    cut = any(record.get("pair_cut") for record in right)
    return len(groups) <= 1 and None not in groups and not cut
