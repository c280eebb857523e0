"""Ratios of times that were sampled in pairs, with their intervals and verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

RESAMPLES = 2000
FLOOR = 0.01
"""No difference below 1% is claimed, however quiet the machine."""
SAME = 0.05
"""Two calls whose whole interval is within 5% are the same."""

Samples = Sequence[Sequence[float]]
"""Milliseconds: one list for each process, one entry for each round, from the first on."""


@dataclass(frozen=True)
class Ratio:
    """Time of a contender over that of a baseline.

    Attributes:
        value: geometric mean over the pairs.
        low: lower end of the bootstrap 95% interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def verdict(self, threshold: float) -> str:
        """FASTER, SLOWER, SAME or UNRESOLVED.

        Args:
            threshold: difference up to which nothing is claimed, as a fraction; see ``noise``.
        """
        if self.high < 1 / (1 + threshold):
            return "FASTER"
        if self.low > 1 + threshold:
            return "SLOWER"
        same = self.low >= 1 / (1 + SAME) and self.high <= 1 + SAME
        return "SAME" if same else "UNRESOLVED"


def ratio(contender: Samples, baseline: Samples) -> Ratio:
    """Ratio of times that were sampled in the same rounds of the same processes.

    The bootstrap draws processes, and rounds within each: what one process has in common (where its
    memory lies) widens the interval as it should. Of few draws a bootstrap interval is too short:
    it is widened about the mean as Student's t widens a normal one. Rounds that one of the two was
    not visited in do not count.
    """
    logs = [
        np.log([a / b for a, b in zip(*process, strict=False)])
        for process in zip(contender, baseline, strict=True)
    ]
    generator = np.random.default_rng(0)
    means = np.empty((RESAMPLES, len(logs)))
    for process, pairs in enumerate(logs):
        means[:, process] = generator.choice(pairs, size=(RESAMPLES, len(pairs))).mean(axis=1)
    drawn = generator.integers(len(logs), size=(RESAMPLES, len(logs)))
    low, high = np.percentile(np.take_along_axis(means, drawn, axis=1).mean(axis=1), [2.5, 97.5])
    value = np.mean([pairs.mean() for pairs in logs])
    widening = _widening(len(logs) if len(logs) > 1 else len(logs[0]))
    ends = (value, value + widening * (low - value), value + widening * (high - value))
    return Ratio(*(float(np.exp(x)) for x in ends))


def _widening(draws: int) -> float:
    """How much longer the 95% interval of a mean of few draws is than its bootstrap interval."""
    if draws < 2:
        return float("inf")
    normal, student = stdtrit(1e9, 0.975), stdtrit(draws - 1, 0.975)
    return float(student / normal * np.sqrt(draws / (draws - 1)))


def noise(first: Samples, second: Samples) -> float:
    """Threshold from an A/A comparison: how far its interval reaches from 1, as a fraction."""
    found = ratio(first, second)
    return max(FLOOR, found.high - 1, 1 / found.low - 1)


def by_process(record: Mapping[Any, Any]) -> list[list[float]]:
    """Samples of a record that was timed in turn, apart for each of its processes."""
    samples, processes = record["samples_ms"], int(record["pair_processes"])
    rounds = len(samples) // processes
    return [samples[i * rounds : (i + 1) * rounds] for i in range(processes)]


def digits(value: float) -> str:
    """Three significant digits of a ratio, two of one that is out of all proportion."""
    if not 1e-3 <= value < 1e5:
        return f"{value:.2g}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
