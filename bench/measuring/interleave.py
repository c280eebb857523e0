"""Calls timed in turn, so that drift hits all alike."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lossbench.bench.cases.calls import Call
from lossbench.bench.measuring.timing import VISIT_MS, make_timer, no_garbage_collection

Timer = Callable[[Call], tuple[float, Any]]
VISIT_CALLS = 20
"""A sample is the median of the calls of one visit, at most so many."""


def interleave(
    calls: Sequence[Call], rounds: Sequence[int], device: str
) -> tuple[list[list[float]], list[tuple[Tensor, ...]]]:
    """Time calls in turn, to and fro (A B C, C B A, ...), so that drift hits all alike.

    Args:
        calls: what is compared, warmed up.
        rounds: how often each is visited, from the first round on; even.
        device: "cpu" or "cuda".

    Returns:
        For each call its samples in milliseconds, one a round; and what each last returned, without
        its graph.
    """
    timer = make_timer(device)
    samples: list[list[float]] = [[] for _ in calls]
    outputs: list[tuple[Tensor, ...]] = [() for _ in calls]
    with no_garbage_collection():
        for number in range(max(rounds)):
            order = [index for index in range(len(calls)) if number < rounds[index]]
            for index in order if number % 2 == 0 else reversed(order):
                elapsed, output = _visit(timer, calls[index])
                samples[index].append(elapsed)
                outputs[index] = output if number == rounds[index] - 1 else ()
                del output  # so that the next call finds as much memory
    return samples, outputs


def _visit(timer: Timer, call: Call) -> tuple[float, tuple[Tensor, ...]]:
    """Median of as many calls as fit in a visit, and what the last returned."""
    first, result = timer(call)
    times = [first]
    for _ in range(min(VISIT_CALLS, int(VISIT_MS / max(first, 1e-3)))):
        del result
        elapsed, result = timer(call)
        times.append(elapsed)
    return float(np.median(times)), tuple(tensor.detach() for tensor in result)
