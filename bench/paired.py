"""Compare calls in a way that survives noise: interleaved, pair by pair, across processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.timing import make_timer, no_garbage_collection, one_thread

RESAMPLES = 2000
FLOOR = 0.01
"""No difference below 1% is claimed, however quiet the machine."""
SAME = 0.05
"""Two calls whose whole interval is within 5%, or the threshold if that is more, are the same."""
VISIT_MS = 10.0
VISIT_CALLS = 20
"""A sample is the median of the calls of one visit, which lasts about this."""

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


def interleave(calls: Sequence[Callable[[], Any]], rounds: int, device: str) -> list[list[float]]:
    """Time calls in turn, to and fro (A B C, C B A, ...), so that drift hits all alike.

    Args:
        calls: what is compared, warmed up.
        rounds: how often each is visited; even.
        device: "cpu" or "cuda".

    Returns:
        For each call its samples in milliseconds, one a round.
    """
    timer = make_timer(device)
    samples: list[list[float]] = [[] for _ in calls]
    with no_garbage_collection():
        for number in range(rounds):
            order = range(len(calls)) if number % 2 == 0 else reversed(range(len(calls)))
            for index in order:
                samples[index].append(_visit(timer, calls[index]))
    return samples


def _visit(timer: Callable[[Any], tuple[float, Any]], call: Callable[[], Any]) -> float:
    """Median of as many calls as fit in a visit."""
    times = [timer(call)[0]]
    more = min(VISIT_CALLS, int(VISIT_MS / max(times[0], 1e-3)))
    times += [timer(call)[0] for _ in range(more)]
    return float(np.median(times))


def time_ratio(
    contender: Callable[[], Any], baseline: Callable[[], Any], device: str, pairs: int = 20
) -> Ratio:
    """Time two calls in the order A B B A, as the gates of ``pytest --benchmark`` do.

    On the CPU they run on one thread, less the time it spent waiting for a core: threads that wait
    for each other magnify a busy neighbour. The interval is of the mean over pairs: a slow spell
    that hits one pair widens it rather than moving it.
    """
    first, second = [], []
    with one_thread():
        timer = make_timer(device, alone=True)
        for call in (contender, baseline):
            call()  # warms up
        for number in range(pairs):
            order = (contender, baseline) if number % 2 == 0 else (baseline, contender)
            times = [timer(call)[0] for call in order]
            a, b = times if number % 2 == 0 else reversed(times)
            first.append(a)
            second.append(b)
    return ratio([first], [second])
