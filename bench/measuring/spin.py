"""Whether other work keeps a machine busy: a short test of its own. Imports torch late."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lossbench.bench.measuring.disturbance import STALLED, Watch

SPIN_S = 0.5
"""Beside a neighbour that is busy for 0.3 s and idle for 0.3 s, a test of 0.2 s may see nothing."""
ELEMENTS = 32768
"""Of one thread's part of a piece of work: torch makes no smaller parts. About 5 us."""
BUSY = 0.10
"""A machine is busy if threads wait for a core for a larger share of the time that they could use,
or if its host takes a larger share of all cores.

On two cores and two threads: 4% to 6% in 12 tests before all others in priority, 14% to 31% in 12
beside a neighbour that keeps one core busy for 0.3 s and rests for 0.3 s, 80% among four others."""
STAT, PRESSURE = Path("/proc/stat"), Path("/proc/pressure/cpu")
MEANWHILE = "times will be uncertain, counts and memory are not"
PREFIX = "spin_"
"""Of the fields of a record that hold what was found."""


@dataclass(frozen=True)
class Spin:
    """What many small pieces of parallel work, all alike, showed of a machine.

    Attributes:
        slowdown: mean time of a piece over that of the best.
        waited: share of the time that this process's threads could use in which they waited for a
            core; None where the system does not say.
        steal: share of all cores that the host of a virtual machine took; None likewise.
        pressure: share of the time in which something waited for a core; None likewise.
        switches: how often a second a thread had to leave its core to another.
    """

    slowdown: float
    waited: float | None = None
    steal: float | None = None
    pressure: float | None = None
    switches: float | None = None

    def describe(self) -> dict[str, float]:
        """As a header has it."""
        return {name: round(x, 4) for name, x in asdict(self).items() if x is not None}

    def fields(self) -> dict[str, float]:
        """As a record has it."""
        return {f"{PREFIX}{name}": value for name, value in self.describe().items()}

    @property
    def signs(self) -> list[str]:
        """What shows that the machine is busy, in words; none if it is not."""
        found = []
        if (self.waited or 0) > BUSY:
            found.append(f"threads had to wait for a core {self.waited:.0%} of the time")
        if (self.steal or 0) > BUSY:
            found.append(f"its host took {self.steal:.0%} of the time")
        if self.slowdown > STALLED and not found:
            found.append(f"small parallel work takes {self.slowdown:.0f} times as long as at best")
        return found

    @property
    def warning(self) -> str:
        """A line for the user of a busy machine; "" of another."""
        signs = ", ".join(self.signs)
        return f"the machine is busy: {signs}; {MEANWHILE}" if signs else ""


NAMES = tuple(Spin.__dataclass_fields__)


def of(found: Mapping[Any, Any] | None, prefix: str = "") -> Spin | None:
    """From a header or, with their prefix, the fields of a record; None if there was no test."""
    values = {name: (found or {}).get(f"{prefix}{name}") for name in NAMES}
    known = {name: float(x) for name, x in values.items() if x is not None and x == x}
    return Spin(**known) if "slowdown" in known else None


class Beside:
    """A test that begins now, by whatever work, always the same."""

    def __init__(self) -> None:
        self._steal, self._pressure, self._watch = _steal(), _pressure(), Watch()

    def stop(self, times: Sequence[float]) -> Spin:
        """What it showed; ``times`` are those of the pieces of work."""
        stretch = self._watch.stop()
        waited = stretch.waited_s
        return Spin(
            slowdown=float(np.mean(times) / max(min(times), 1e-9)),
            waited=None if waited is None else waited / max(waited + stretch.cpu_s, 1e-9),
            steal=_share(self._steal, _steal()),
            pressure=_share(self._pressure, _pressure()),
            switches=stretch.switches / stretch.wall_s,
        )


def spin(seconds: float = SPIN_S) -> Spin:
    """Test the machine on all threads of torch."""
    import torch

    numbers = torch.ones(ELEMENTS * torch.get_num_threads())
    numbers.add_(1.0)  # starts the threads
    test = Beside()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        numbers.add_(1.0)
        times.append(time.perf_counter() - start)
    return test.stop(times)


def _steal() -> tuple[float, float] | None:
    """Clock ticks of all cores that the host took, and all there were."""
    try:
        ticks = STAT.read_text().split("\n", 1)[0].split()[1:9]
        return float(ticks[7]), float(sum(map(int, ticks)))
    except (OSError, IndexError):
        return None


def _pressure() -> tuple[float, float] | None:
    """Seconds in which something waited for a core, and what time it is."""
    try:
        some = PRESSURE.read_text().split("\n", 1)[0]
        return int(some.rpartition("total=")[2]) / 1e6, time.perf_counter()
    except (OSError, ValueError):
        return None


def _share(before: tuple[float, float] | None, after: tuple[float, float] | None) -> float | None:
    """What was added to the first, of what was added to the second."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])
