"""Bounds of the headline steps: SMI in 16 bits, with its gradient and without."""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Any
from unittest import mock

from lossbench.bench.cases.case import Case
from lossbench.bench.counting.operations import launch_of
from lossbench.bench.counting.trace import Trace, trace
from lossbench.bench.predicting import audit, bounds
from lossbench.bench.predicting.bounds import Bound, Code, Task
from lossbench.bench.predicting.pipes import rates

SHAPES = ((256, 8192), (2048, 8192), (4096, 8192), (16384, 2048), (65536, 1024))
"""N and D."""
OPERANDS = "16-bit"


@dataclass(frozen=True)
class Part:
    """Launches of a step that are alike.

    Attributes:
        launch: one of them.
        task: of each.
        count: how many there are.
        code: what it compiles to.
    """

    launch: audit.Launch
    task: Task
    count: int
    code: Code

    @property
    def bound(self) -> Bound:
        """Of one launch."""
        return bounds.bound(self.code, self.task)

    @property
    def loaded(self) -> float:
        """Bytes of operands that a multiprocessor reads in a cycle, if it is as fast as can be."""
        sides = dict(self.launch.constants)
        loaded = 2 * self.task.macs * (1 / sides["ROWS"] + 1 / sides["COLUMNS"])
        per_processor = self.task.tiles * loaded / rates(self.code.capability).processors
        return per_processor / self.bound.cycles


@dataclass(frozen=True)
class Step:
    """One evaluation of a loss by the fused kernels.

    Attributes:
        case: what is evaluated.
        capability: compute capability.
        parts: launches that make tiles or finish them.
        library_macs: multiply-adds of cuBLAS, taken to be at the peak.
        moved_bytes: read and written by all operations, as if there were no caches.
    """

    case: Case
    capability: int
    parts: tuple[Part, ...]
    library_macs: int
    moved_bytes: int

    @property
    def cycles(self) -> float:
        """At least: one launch after another."""
        return sum(part.count * part.bound.cycles for part in self.parts) + self._peak(
            self.library_macs
        )

    @property
    def share(self) -> float:
        """Of the tensor cores' peak, at most: by the multiply-adds that the loss needs."""
        return self._peak(self.case.cost.macs(self.case.pass_)) / self.cycles

    def _peak(self, macs: float) -> float:
        rate = rates(self.capability)
        return macs / rate.tensor[OPERANDS] / rate.processors


def cases() -> list[Case]:
    """The headline shapes, with a gradient and without."""
    return [
        Case("smi", "triton", batch, dim, dtype="float16", pass_=pass_, device="cuda")
        for batch, dim in SHAPES
        for pass_ in ("step", "forward")
    ]


def steps(capability: int) -> Iterator[Step]:
    """The headline steps of a compute capability, compiled.

    Raises:
        ValueError: there is no configuration for it, or no compiler here.
    """
    audit.check(capability)
    followed = [(case, *_follow(case, capability)) for case in cases()]
    needed = list(dict.fromkeys(launch for _, _, found in followed for launch, _ in found))
    # a path in the machine code would make it depend on where the project lies
    stable = mock.patch.dict(os.environ, {"TRITON_DISABLE_LINE_INFO": "1"})
    with stable, ThreadPoolExecutor(os.cpu_count()) as pool:
        codes = pool.map(lambda launch: bounds.compiled(launch, capability), needed)
        known = dict(zip(needed, codes, strict=True))
    for case, done, found in followed:
        parts = tuple(Part(*kind, count, known[kind[0]]) for kind, count in found.items())
        made = sum(part.count * part.task.tiles * part.task.macs for part in parts)
        yield Step(case, capability, parts, done.executed_macs - made, done.moved_bytes)


def _follow(case: Case, capability: int) -> tuple[Trace, Counter[tuple[audit.Launch, Task]]]:
    """What a step does, and its launches over tiles."""
    found: Counter[tuple[audit.Launch, Task]] = Counter()

    def note(kernel: Any, arguments: dict[str, Any], grid: tuple[int, ...]) -> None:
        if "region_down" in arguments:
            programs = prod(grid)
            task = Task(programs, launch_of(arguments, grid).macs // programs, programs)
            found[audit.describe(kernel, arguments, OPERANDS), task] += 1

    return trace(case, capability=str(capability), watch=note), found
