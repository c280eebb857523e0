"""What was taken from a process during a stretch of time, while it wanted to compute."""

import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TAKEN = 0.15
"""A stretch is disturbed if more than this share of it was taken away.

Of 750 visits of 60 ms with two threads on two cores, 350 of them before all others in priority and
400 beside a neighbour that keeps a core busy for 0.3 s and rests for 0.3 s: where threads waited
for 10% to 15% of a visit it took 8% longer in the median than the quickest tenth, about what rounds
differ by anyway; from 15% to 20% it was 14%, and above 40% twice as long. Such a neighbour disturbs
over half of the visits of two threads. One thread finds the other core: of 150 visits 1."""
STALLED = 3.0
"""... or if it took this many times the best stretch of the same call.

A virtual machine's host can take a core without a trace: threads that meet after every small piece
of work then take 10 to 40 times as long, while they spin and their CPU time grows alike. Of the
visits above that waited for up to 15%, none took more than 1.7 times the best."""
MOSTLY = 0.25
"""Where a larger share of samples stayed disturbed, times are those of a busy machine."""
_TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class Stretch:
    """What this process got during a stretch of time.

    Attributes:
        wall_s: how long it lasted.
        cpu_s: CPU time of all threads. Of threads that run it is up to a tick of the clock (4 to
            10 ms) old.
        waited_s: for how long threads waited for a core, all of them added up; None where the
            system does not say. Only Linux does.
        switches: how often a thread had to leave its core to another.
    """

    wall_s: float
    cpu_s: float
    waited_s: float | None
    switches: int

    @property
    def cpu_share(self) -> float:
        """CPU time over wall time: as many as there are threads that ran all the time."""
        return self.cpu_s / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def taken(self) -> float:
        """Share of the time in which threads waited for a core, or no thread ran.

        No thread of a computation runs only while others have the cores, or if the machine stood
        still: it was paused or suspended, or its clock jumped.
        """
        if self.wall_s <= 0:
            return 0.0
        return max(self.waited_s or 0.0, self.wall_s - self.cpu_s) / self.wall_s


class Watch:
    """A stretch of time that begins now."""

    def __init__(self) -> None:
        self._switches = _switches()
        self._waited = _waited_ns()
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def stop(self) -> Stretch:
        """What it was up to now."""
        wall_s, cpu_s = time.perf_counter() - self._wall, time.process_time() - self._cpu
        # a thread that has ended is no more in the list: what it waited before is not taken off
        now, before = _waited_ns(), self._waited
        waited = sum(ns - before.get(task, 0) for task, ns in now.items()) / 1e9 if now else None
        return Stretch(wall_s, cpu_s, waited, _switches() - self._switches)


def severity(taken: float, elapsed: float, best: float) -> float:
    """How much a stretch was disturbed, in terms of what is tolerated: up to 1 it was not.

    Args:
        taken: share of it that was taken away.
        elapsed: what was timed in it.
        best: the least that was timed of the same call, in the same unit.

    Raises:
        RuntimeError: a call that took no time.
    """
    if best <= 0:
        raise RuntimeError("the clock stood still or ran backwards: no time can be believed")
    return max(taken / TAKEN, elapsed / (STALLED * best))


def describe(samples: Sequence[float], stretches: Sequence[Stretch]) -> dict[str, Any]:
    """Fields of what stands beside samples of a call, each the time of one stretch.

    Returns:
        ``cpu_shares`` and ``taken_shares`` of each, and how many were ``disturbed``.
    """
    taken = [round(stretch.taken, 3) for stretch in stretches]
    return {
        "cpu_shares": [round(stretch.cpu_share, 3) for stretch in stretches],
        "taken_shares": taken,
        "disturbed": disturbed(samples, taken),
    }


def disturbed(samples: Sequence[float], taken: Sequence[float]) -> int:
    """How many samples of a call were, of which the share is known that was taken from each."""
    best = min(samples)
    pairs = zip(samples, taken, strict=True)
    return sum(severity(share, elapsed, best) > 1 for elapsed, share in pairs)


def beside(sittings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is said beside the samples of a case that was timed in turn.

    Args:
        sittings: what ``bench.measuring.measure.compare`` says of the case in each.

    Returns:
        ``cpu_shares``, ``disturbed`` and ``retaken`` of all of them, as far as they say so.
    """
    shares = [share for each in sittings for share in each.get("cpu_shares", ())]
    counts = {
        name: sum(each[name] for each in sittings)
        for name in ("disturbed", "retaken")
        if all(name in each for each in sittings)
    }
    return {**({"cpu_shares": shares} if shares else {}), **counts}


def count_disturbed(records: Iterable[Mapping[Any, Any]]) -> tuple[int, int]:
    """How many samples of records stayed disturbed, of how many of which that is known."""
    known = [record for record in records if "disturbed" in record]
    samples = sum(len(record["samples_ms"]) for record in known)
    return sum(record["disturbed"] for record in known), samples


def is_mostly(disturbed: float, samples: float) -> bool:
    """Whether so many disturbed samples say that the machine was busy."""
    return disturbed > MOSTLY * samples


def _waited_ns() -> dict[str, int]:
    """For how long each thread could have run but did not; empty where nobody says."""
    waited = {}
    try:
        for task in _TASKS.iterdir():
            with suppress(OSError, IndexError):  # it has just ended
                waited[task.name] = int((task / "schedstat").read_text().split()[1])
    except OSError:
        return {}
    return waited


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
