"""Compare two calls in a way that survives noise: interleaved, pair by pair."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.timing import make_timer, one_thread

RESAMPLES = 2000


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


def time_ratio(
    contender: Callable[[], Any], baseline: Callable[[], Any], device: str, pairs: int = 20
) -> Ratio:
    """Time two calls in the order A B B A, so that drift hits both alike.

    On the CPU they run on one thread, less the time it spent waiting for a core: threads that wait
    for each other magnify a busy neighbour. The interval is of the mean over pairs: a slow spell
    that hits one pair widens it rather than moving it.
    """
    logs = []
    with one_thread():
        timer = make_timer(device, alone=True)
        for call in (contender, baseline):
            call()  # warms up
        for index in range(pairs):
            order = (contender, baseline) if index % 2 == 0 else (baseline, contender)
            first, second = (timer(call)[0] for call in order)
            logs.append(np.log(first / second) * (1 if index % 2 == 0 else -1))
    generator = np.random.default_rng(0)
    means = generator.choice(logs, size=(RESAMPLES, pairs)).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Ratio(*(float(np.exp(x)) for x in (np.mean(logs), low, high)))
