"""Compare calls in a way that survives noise: interleaved, pair by pair, across processes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bench.ratios import Ratio, ratio
from bench.timing import make_timer, no_garbage_collection, one_thread

VISIT_MS = 10.0
VISIT_CALLS = 20
"""A sample is the median of the calls of one visit, which lasts about this."""


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
