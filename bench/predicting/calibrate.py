"""Measure a device's ceilings: matrix products of each dtype, copies of each size, launches."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lossbench.bench.cases.case import DTYPES
from lossbench.bench.measuring.timing import one_thread
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.losses.precision import fp32_products

SIDES = {"cpu": (256, 512, 1024, 2048), "cuda": (2048, 4096, 8192)}
"""Of square products: which of them is fastest depends on the device. The smallest takes a CPU less
than a time slice, so that a neighbour on its core, however busy, does not hit all of its calls."""
COPIED = {"cpu": range(14, 29, 2), "cuda": range(18, 33, 2)}
"""Binary logarithms of the bytes that a copy reads and writes."""
SLOW_S = 0.3
"""A product that would take longer than this is not made."""
PASSES = 3
"""Over all products, copies and launches: what slows the device down for a second then hits one of
the tries of each, and the best of them counts."""
MEASURE_S = 0.03
"""For which a call is repeated in a pass."""
IN_A_ROW = {"cpu": 1, "cuda": 20}
"""Calls that are timed at once: a GPU must not wait for each to be noticed."""
FEW = 2**14
"""Random numbers that are drawn, which takes far longer than repeating them."""
CHAIN = 50
"""Operations in a row, forward and backward, of which the launch is timed."""


@dataclass(frozen=True)
class Stopwatch:
    """Times calls on a device.

    Attributes:
        device: "cpu" or "cuda".
        barrier: waits for the other processes of a job, which measure the same at the same time;
            None: there is no job.
    """

    device: str
    barrier: Callable[[], None] | None = None

    def seconds(self, call: Callable[..., Any], *arguments: Any) -> float:
        """Seconds of a call: of the shortest of many, as what others do only makes them longer.

        In a job the mean of a try: waiting for what its processes share, such as cores, is part of
        it. There too, the best try counts of ``PASSES``.
        """
        call(*arguments)  # warms up
        best, begun, calls = float("inf"), time.perf_counter(), 0
        while not calls or time.perf_counter() < begun + MEASURE_S:
            _wait(self.device)
            start = time.perf_counter()
            for _ in range(IN_A_ROW[self.device]):
                call(*arguments)
            _wait(self.device)
            best = min(best, (time.perf_counter() - start) / IN_A_ROW[self.device])
            calls += IN_A_ROW[self.device]
        return (time.perf_counter() - begun) / calls if self.barrier else best

    def meet(self) -> None:
        """Begin when all processes do."""
        if self.barrier:
            self.barrier()


def calibrate(device: str, barrier: Callable[[], None] | None = None) -> Ceilings:
    """Measure the ceilings of a device, in a few seconds: the best of several passes over all.

    Args:
        device: "cpu" or "cuda".
        barrier: as that of ``Stopwatch``.
    """
    watch = Stopwatch(device, barrier)
    best = Ceilings.best([_try(watch) for _ in range(PASSES)])
    if device == "cuda":
        torch.cuda.empty_cache()  # room for the cases, which run in another process
    return best


def _try(watch: Stopwatch) -> Ceilings:
    """A pass over everything that is measured."""
    precisions = [*DTYPES, *(["tf32"] if watch.device == "cuda" else [])]
    return Ceilings(
        {name: _gemm_gflops(watch, name) for name in precisions},
        list(_copies(watch)),
        _launch_us(watch),
    )


def _gemm_gflops(watch: Stopwatch, precision: str) -> float:
    """The fastest of the products, in 10^9 FLOP/s.

    On the CPU by one thread, times their number: threads add up at best, and one thread does not
    wait for others that share their cores with a neighbour.
    """
    dtype = torch.float32 if precision == "tf32" else getattr(torch, precision)
    device, best = watch.device, 0.0
    watch.meet()
    for side in SIDES[device]:
        left, right = (_random(side**2, device).view(side, side).to(dtype) for _ in "ab")
        with _precision(precision), one_thread():
            seconds = watch.seconds(torch.mm, left, right)
        best = max(best, 2 * side**3 / seconds / 1e9)
        if 8 * seconds > SLOW_S:
            break
    return best * (torch.get_num_threads() if device == "cpu" else 1)


def _random(count: int, device: str) -> Tensor:
    """Random numbers, as some devices are quicker with zeros: a few of them, time and again."""
    few = torch.randn(min(count, FEW), device=device)
    return few.repeat(count // len(few))


def _precision(name: str) -> AbstractContextManager[None]:
    if name in ("float32", "tf32"):
        return fp32_products("tf32" if name == "tf32" else "ieee")
    return nullcontext()


def _copies(watch: Stopwatch) -> Iterator[tuple[int, float]]:
    """Of each size; on the CPU by all threads, or by one where those wait for a core."""
    for power in COPIED[watch.device]:
        source = _random(2**power // 8, watch.device)
        copy = torch.empty_like(source).copy_
        watch.meet()
        with one_thread():
            alone = watch.seconds(copy, source)
        seconds = min(alone, watch.seconds(copy, source))
        yield 2**power, 2**power / seconds / 1e9


def _launch_us(watch: Stopwatch) -> float:
    x = torch.ones(1, device=watch.device, requires_grad=True)

    def chain() -> None:
        y = x
        for _ in range(CHAIN):
            y = y * 1.0
        torch.autograd.grad(y, x)

    watch.meet()
    return watch.seconds(chain) / (2 * CHAIN) * 1e6


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
