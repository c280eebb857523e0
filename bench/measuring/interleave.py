"""Calls timed in turn, so that drift hits all alike, and what disturbed them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from lossbench.bench.cases.calls import Call
from lossbench.bench.measuring.disturbance import Stretch, Watch, severity
from lossbench.bench.measuring.timing import VISIT_MS, make_timer, no_garbage_collection

Timer = Callable[[Call], tuple[float, Any]]
Output = tuple[Tensor, ...]
Look = Callable[[int, Output], None]
VISIT_CALLS = 20
"""A sample is the median of the calls of one visit, at most so many."""
AGAIN = 8
"""A visit that was disturbed is taken again, at most so often ..."""
AGAIN_SHARE, AGAIN_SHARE_LONG = 1.0, 0.25
"""... and as long as that takes up to this share of the time of all visits, of long ones less:
quick ones find a moment between the bursts of other work, long ones seldom do. One that is the only
visit of its call is worth it all the same."""
LONG_S = 1.0
"""What a long visit takes."""


@dataclass(frozen=True)
class Sitting:
    """What calls gave that were timed in turn: one entry for each call.

    Attributes:
        samples: milliseconds, one a round.
        cpu_shares: CPU time over wall time beside each sample; on a GPU, whose time is not the
            CPU's, none.
        disturbed: how many of the samples stayed disturbed.
        retaken: how many visits were taken again.
    """

    samples: list[list[float]]
    cpu_shares: list[list[float]]
    disturbed: list[int]
    retaken: list[int]


@dataclass(frozen=True)
class _Visit:
    """Milliseconds of a call, and what the process got meanwhile."""

    ms: float
    stretch: Stretch


def interleave(
    calls: Sequence[Call], rounds: Sequence[int], device: str, look: Look | None = None
) -> Sitting:
    """Time calls in turn, to and fro (A B C, C B A, ...), so that drift hits all alike.

    A visit that was disturbed is taken again at once, as far as that is allowed: ``AGAIN``. Of its
    tries the least disturbed one counts, not the quickest.

    Args:
        calls: what is compared, warmed up.
        rounds: how often each is visited, from the first round on; even, or 1.
        device: "cpu" or "cuda".
        look: what is done with the number of a call and what its last visit returned, without its
            graph. Right after it, so that nothing of it is kept: a call that finds less memory free
            than before takes longer.

    Raises:
        RuntimeError: a clock by which a call took no time.
    """
    turns = _Turns(calls, device, look)
    with no_garbage_collection():
        for number in range(max(rounds)):
            order = [index for index in range(len(calls)) if number < rounds[index]]
            for index in order if number % 2 == 0 else reversed(order):
                turns.take(index, number, rounds[index])
    return turns.sitting()


class _Turns:
    """The visits of a sitting.

    Args:
        calls: what is visited.
        device: "cpu" or "cuda".
        look: as ``interleave`` takes it.
    """

    def __init__(self, calls: Sequence[Call], device: str, look: Look | None) -> None:
        self._calls, self._timer, self._on_cpu = calls, make_timer(device), device == "cpu"
        self._look = look
        self._visits: list[list[_Visit]] = [[] for _ in calls]
        self._best_ms = [float("inf") for _ in calls]
        self._shortest_s = [float("inf") for _ in calls]
        self._retaken = [0 for _ in calls]
        self._left_s = 0.0

    def take(self, index: int, number: int, rounds: int) -> None:
        """Visit a call in a round, and look at what it returned if this is its last visit."""
        visit, output = self._visit(index)
        tries = [visit]
        took_s = visit.stretch.wall_s
        is_long = took_s > LONG_S and rounds > 1
        self._left_s += took_s * (AGAIN_SHARE_LONG if is_long else AGAIN_SHARE)
        while len(tries) <= AGAIN and self._is_worth_it(index, tries):
            del output  # so that the call finds as much memory as before
            visit, output = self._visit(index)
            tries.append(visit)
            self._left_s -= visit.stretch.wall_s
            self._retaken[index] += 1
        self._visits[index].append(min(tries, key=lambda visit: self._severity(index, visit)))
        if self._look and number == rounds - 1:
            self._look(index, output)

    def _is_worth_it(self, index: int, tries: Sequence[_Visit]) -> bool:
        """Whether all tries were disturbed, and there is time for one as it should be."""
        is_disturbed = min(self._severity(index, visit) for visit in tries) > 1
        return is_disturbed and self._shortest_s[index] <= self._left_s

    def _visit(self, index: int) -> tuple[_Visit, Output]:
        watch = Watch()
        ms, output = _visit(self._timer, self._calls[index])
        visit = _Visit(ms, watch.stop())
        self._best_ms[index] = min(self._best_ms[index], ms)
        self._shortest_s[index] = min(self._shortest_s[index], visit.stretch.wall_s)
        return visit, output

    def _severity(self, index: int, visit: _Visit) -> float:
        taken = visit.stretch.taken if self._on_cpu else 0.0
        return severity(taken, visit.ms, self._best_ms[index])

    def sitting(self) -> Sitting:
        """What was found; whether a sample was disturbed is judged by the best of all rounds."""
        return Sitting(
            samples=[[visit.ms for visit in visits] for visits in self._visits],
            cpu_shares=[
                [round(visit.stretch.cpu_share, 3) for visit in visits if self._on_cpu]
                for visits in self._visits
            ],
            disturbed=[
                sum(self._severity(index, visit) > 1 for visit in visits)
                for index, visits in enumerate(self._visits)
            ],
            retaken=self._retaken,
        )


def _visit(timer: Timer, call: Call) -> tuple[float, Output]:
    """Median of as many calls as fit in a visit, and what the last returned."""
    first, result = timer(call)
    times = [first]
    for _ in range(min(VISIT_CALLS, int(VISIT_MS / max(first, 1e-3)))):
        del result
        elapsed, result = timer(call)
        times.append(elapsed)
    return float(np.median(times)), tuple(tensor.detach() for tensor in result)
