"""Wall time of a pass: raw samples of fresh calls, never a replay of an old graph."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lossbench.bench.cases.calls import Call

MAX_SAMPLES = 50
MIN_SAMPLES = 3
TARGET_S = 2.0
"""Sampling stops here once there are ``MIN_SAMPLES`` ..."""
LIMIT_S = 7.0
"""... and here in any case once there are two."""


def sample_ms(call: Call, device: str) -> tuple[list[float], Any]:
    """Time calls one by one until there are enough samples or the time is spent.

    The call must have run before: the first one pays for warming up. On CUDA the L2 cache is
    flushed between samples, as a training step would.

    Returns:
        Milliseconds of each call, in the order in which they ran; what the last call returned.
    """
    timer = make_timer(device)
    samples: list[float] = []
    result = None
    with no_garbage_collection():
        while not enough(samples):
            result = None  # freeing the last graph is not part of the pass
            elapsed, result = timer(call)
            samples.append(elapsed)
    return samples, result


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Python's collector would run at random inside a sample."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def make_timer(device: str, alone: bool = False) -> Callable[[Call], tuple[float, Any]]:
    """A function that runs a call once and returns its milliseconds and its result.

    Args:
        device: "cpu" or "cuda".
        alone: leave out the time that this thread, the only one, spent waiting for a CPU core.
    """
    if device == "cuda":
        return _cuda_timer()
    return _lone_cpu_timer if alone else _cpu_timer


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one CPU thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def enough(samples: Sequence[float]) -> bool:
    """Whether there are enough samples, in ms, or the time is spent."""
    spent = sum(samples) / 1e3
    if len(samples) >= MAX_SAMPLES or (len(samples) >= 2 and spent >= LIMIT_S):
        return True
    return len(samples) >= MIN_SAMPLES and spent >= TARGET_S


def _cpu_timer(call: Call) -> tuple[float, Any]:
    start = time.perf_counter_ns()
    result = call()
    return (time.perf_counter_ns() - start) / 1e6, result


def _lone_cpu_timer(call: Call) -> tuple[float, Any]:
    start = time.perf_counter_ns()  # first, so that no wait is subtracted that it did not include
    waited = _waited_for_a_core_ns()
    result = call()
    waited = _waited_for_a_core_ns() - waited
    return (time.perf_counter_ns() - start - waited) / 1e6, result


def _waited_for_a_core_ns() -> int:
    """Time that this thread could have run but another process held the core (Linux, else 0)."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1])
    except OSError:
        return 0


def _cuda_timer() -> Callable[[Call], tuple[float, Any]]:
    properties = torch.cuda.get_device_properties(0)
    flush = torch.empty(4 * properties.L2_cache_size, dtype=torch.int8, device="cuda")

    def timer(call: Call) -> tuple[float, Any]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        start.record()
        result = call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end), result

    return timer


def summarise(samples: Sequence[float]) -> dict[str, Any]:
    """Median and 20th and 80th percentile of ``samples``, with the raw samples, in ms."""
    low, median, high = np.percentile(samples, [20, 50, 80]).tolist()
    return {
        "median_ms": median,
        "p20_ms": low,
        "p80_ms": high,
        "samples_ms": [round(sample, 6) for sample in samples],
    }
