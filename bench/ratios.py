"""Ratios of times that were sampled in pairs, with their intervals and verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
FLOOR = 0.01
"""No difference below 1% is claimed, however quiet the machine."""
SAME = 0.05
"""Two calls whose whole interval is within 5%, or the threshold if that is more, are the same."""

Samples = Sequence[Sequence[float]]
"""Milliseconds: one list for each process, one entry for each round."""


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
        margin = 1 + max(threshold, SAME)
        return "SAME" if self.low >= 1 / margin and self.high <= margin else "UNRESOLVED"


def ratio(contender: Samples, baseline: Samples) -> Ratio:
    """Ratio of times that were sampled in the same rounds of the same processes.

    The bootstrap draws processes, and rounds within each: what one process has in common (where its
    memory lies) widens the interval as it should.
    """
    logs = [np.log(np.asarray(a) / np.asarray(b)) for a, b in zip(contender, baseline, strict=True)]
    generator = np.random.default_rng(0)
    means = np.empty((RESAMPLES, len(logs)))
    for process, pairs in enumerate(logs):
        means[:, process] = generator.choice(pairs, size=(RESAMPLES, len(pairs))).mean(axis=1)
    drawn = generator.integers(len(logs), size=(RESAMPLES, len(logs)))
    low, high = np.percentile(np.take_along_axis(means, drawn, axis=1).mean(axis=1), [2.5, 97.5])
    value = np.mean([pairs.mean() for pairs in logs])
    return Ratio(*(float(np.exp(x)) for x in (value, low, high)))


def noise(first: Samples, second: Samples) -> float:
    """Threshold from an A/A comparison: how far its interval reaches from 1, as a fraction."""
    found = ratio(first, second)
    return max(FLOOR, found.high - 1, 1 / found.low - 1)
