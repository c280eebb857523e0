"""Wall time of a pass: raw samples of fresh calls, never a replay of an old graph."""

import gc
import time
import weakref
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
MOMENTS = 3
"""At which a case that is timed alone is sampled, for a third of its samples each. What slows the
machine down for a second or two hits one of them.

Of 168 times of cases of 5 to 25 ms, sampled at one moment each on two shared cores, six were 1.5 to
1.9 times the usual one, by all of their 50 samples."""
SHORTEST_WAIT_MS, LONGEST_WAIT_MS = 0.5, 20.0
"""For which a GPU waits before a call's clock starts: a fused step is launched in about 1 ms."""
CYCLES_PER_MS = 2e6
"""Of the clock that ``torch.cuda._sleep`` counts, about: the wait only has to be long enough."""
VISIT_MS = 60.0
"""For which a call is timed before it is another's turn.

On two busy threads, visits of 60 ms spread by 5% from round to round where 10 ms spread by 12%."""
FEW = 5
"""Samples of a call that will be timed in turn with others: how long its visits take."""


def sample_ms(
    call: Call,
    timer: Callable[[Call], tuple[float, Any]],
    is_enough: Callable[[Sequence[float]], bool],
) -> tuple[list[float], Any]:
    """Time calls one by one until there are enough samples.

    The call must have run before: the first one pays for warming up. On CUDA the L2 cache is
    flushed between samples, as a training step would.

    Args:
        call: what is timed.
        timer: of ``make_timer``.
        is_enough: whether samples are, in ms.

    Returns:
        Milliseconds of each call, in the order in which they ran; what the last call returned.
    """
    samples: list[float] = []
    result = None
    with no_garbage_collection():
        while not is_enough(samples):
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
        return CudaTimer()
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


def enough_of_a_moment(samples: Sequence[float]) -> bool:
    """Whether there are enough samples, in ms, of the first of ``MOMENTS``."""
    is_long = bool(samples) and sum(samples) / 1e3 >= TARGET_S / MOMENTS
    return is_long or len(samples) >= MAX_SAMPLES // MOMENTS


def has_further_moments(samples: Sequence[float], moments: int) -> bool:
    """Whether a case should be sampled at another moment.

    Args:
        samples: in ms, all up to now.
        moments: at which they were taken.
    """
    is_slow = len(samples) >= 2 and sum(samples) / 1e3 >= LIMIT_S
    return moments < MOMENTS and not is_slow


def few_enough(samples: Sequence[float]) -> bool:
    """Whether there are ``FEW`` samples, in ms, or as many as take as long as a visit in turn."""
    return len(samples) >= FEW or sum(samples) >= VISIT_MS


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


class CudaTimer:
    """Times the work of a call on the GPU, and not how fast Python can launch it.

    A fused step is launched in about the time that the GPU needs for it: a clock that starts on an
    idle GPU times whichever of the two is longer. So the GPU first waits, for as long as it takes
    to launch all of the call: then the work runs back to back, as behind a network's. Whether it
    did is seen: the clock, too, starts after the wait, so it must not have started when the last
    launch is made. If it has, the call is timed again behind a longer wait.

    Attributes:
        ahead: whether all of the latest call was launched before its clock started. It never is
            where a call waits for the GPU, or where its launches are more than a queue holds.
    """

    def __init__(self) -> None:
        properties = torch.cuda.get_device_properties(0)
        self._flush = torch.empty(4 * properties.L2_cache_size, dtype=torch.int8, device="cuda")
        self._waits: weakref.WeakKeyDictionary[Call, float] = weakref.WeakKeyDictionary()
        self.ahead = False

    def __call__(self, call: Call) -> tuple[float, Any]:
        """Milliseconds of a call, and its result."""
        wait_ms = self._waits.get(call, SHORTEST_WAIT_MS)
        while True:
            elapsed, launching_ms, result = self._time(call, wait_ms)
            if self.ahead or launching_ms > LONGEST_WAIT_MS:
                return elapsed, result
            del result  # so that the next call finds as much memory
            self._waits[call] = wait_ms = 2 * launching_ms

    def _time(self, call: Call, wait_ms: float) -> tuple[float, float, Any]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        torch.cuda._sleep(int(wait_ms * CYCLES_PER_MS))
        start.record()
        begun = time.perf_counter()
        result = call()
        launching_ms = (time.perf_counter() - begun) * 1e3
        end.record()
        self.ahead = not start.query()
        end.synchronize()
        return start.elapsed_time(end), launching_ms, result


def summarise(samples: Sequence[float]) -> dict[str, Any]:
    """Median and 20th and 80th percentile of ``samples``, with the raw samples, in ms."""
    low, median, high = np.percentile(samples, [20, 50, 80]).tolist()
    return {
        "median_ms": median,
        "p20_ms": low,
        "p80_ms": high,
        "samples_ms": [round(sample, 6) for sample in samples],
    }
