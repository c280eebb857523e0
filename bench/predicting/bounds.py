"""What compiled code allows at best."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import networkx as nx

from lossbench.bench.predicting import audit, sass
from lossbench.bench.predicting.paths import Flow
from lossbench.bench.predicting.pipes import PIPES, Rates, rates, work

_UNIT = 256
"""Registers are given to a warp in units of this many."""
_RESERVED = 1024
"""Bytes of shared memory of a program that the system takes."""


@dataclass(frozen=True)
class Size:
    """What a program takes of a multiprocessor.

    Attributes:
        warps: of a program.
        registers: of a thread.
        shared_bytes: of a program.
        tensor_columns: of tensor memory.
    """

    warps: int
    registers: int
    shared_bytes: int
    tensor_columns: int = 0


@dataclass(frozen=True)
class Task:
    """A launch.

    Attributes:
        programs: that make a tile, or a part of it.
        macs: multiply-adds of each.
    """

    programs: int
    macs: int


@dataclass(frozen=True)
class Bound:
    """What the compiled code of a launch allows.

    Attributes:
        task: the launch.
        size: what a program takes.
        resident: programs that a multiprocessor holds.
        steps: trips through the loop that makes products.
        main: cycles of a tile's loop over the depth, of each pipe.
        rest: cycles of a tile besides.
        cycles: of the whole launch, at least.
        limit: what limits it.
        share: of the peak of the tensor cores, at most.
    """

    task: Task
    size: Size
    resident: int
    steps: float
    main: Mapping[str, float]
    rest: Mapping[str, float]
    cycles: float
    limit: str
    share: float


def resident(size: Size, rate: Rates) -> int:
    """Programs that a multiprocessor holds at once (CUDA's occupancy rules).

    Registers are given to warps in units of 256, each scheduler has a quarter of them; shared memory
    in units of 128 bytes, 1 KiB of each program is the system's.
    """
    of_warp = ceil(size.registers * 32 / _UNIT) * _UNIT
    by_registers = rate.registers // 4 // of_warp * 4 // size.warps
    shared = ceil((size.shared_bytes + _RESERVED) / 128) * 128
    limits = [by_registers, rate.shared_kib * 1024 // shared, rate.warps // size.warps]
    if size.tensor_columns:
        limits.append(rate.tensor_columns // size.tensor_columns)
    return min(*limits, rate.programs)


def bound(text: str, capability: int, kind: str, size: Size, task: Task) -> Bound:
    """The least time of a launch.

    Args:
        text: its machine code, of ``nvdisasm -c``.
        capability: compute capability.
        kind: of operands, of ``configs.kind_of``.
        size: what a program takes.
        task: what is launched.
    """
    rate = rates(capability)
    flow = _flow(sass.parse(text), capability, kind, size.warps)
    once, twice = flow.least(1), flow.least(2)
    steps = (task.macs - (2 * once.macs - twice.macs)) / ((twice.macs - once.macs) or 1)
    steps = steps if task.macs else 1
    whole, rest = _tile(flow, steps, False), _tile(flow, steps, True)
    main = {pipe: whole[pipe] - rest[pipe] for pipe in PIPES}
    here = resident(size, rate)
    most = ceil(task.programs / rate.processors)
    chain = max(main.values()) + max(rest.values())
    pipe = max(PIPES, key=whole.__getitem__)
    by_pipe, by_chain = most * whole[pipe], ceil(most / here) * chain
    cycles = max(by_pipe, by_chain)
    peak = task.programs * task.macs / rate.tensor[kind] / rate.processors
    first, last = (max(PIPES, key=part.__getitem__) for part in (main, rest))
    limit = pipe if by_pipe >= by_chain else f"{first} + {last}"
    return Bound(task, size, here, steps, main, rest, cycles, limit, peak / cycles)


def examine(launch: audit.Launch, capability: int, task: Task) -> Bound:
    """Compile a launch and bound it.

    Raises:
        ValueError: its warps do different things.
    """
    found = audit.compiled(launch, capability)
    ptx, cubin, shared = found.asm["ptx"], found.asm["cubin"], found.metadata.shared
    threads = re.search(r"\.reqntid (\d+)", ptx)
    warps = dict(launch.options).get("num_warps", 4)
    if threads is None or int(threads[1]) != 32 * warps:
        raise ValueError(f"{launch.name}: warps of different tasks are not followed")
    registers, _ = audit.resources(cubin, ptx)
    size = Size(warps, registers, shared, getattr(found.metadata, "tmem_size", 0))
    text = audit.tool("nvdisasm", cubin, "-c")
    return bound(text, capability, launch.operands, size, task)


def _tile(flow: Flow, steps: float, rest: bool) -> dict[str, float]:
    """Cycles of one tile more."""
    cycles = flow.least(steps, 1, rest).cycles
    if any(map(flow.goes_on, flow.loops)):
        more = flow.least(steps, 2, rest).cycles
        cycles = tuple(b - a for a, b in zip(cycles, more, strict=True))
    return dict(zip(PIPES, cycles, strict=True))


def _flow(graph: nx.DiGraph, capability: int, kind: str, warps: int) -> Flow:
    blocks = {number: graph.nodes[number]["block"].instructions for number in graph}
    works = {n: work(each, capability, kind, warps, False) for n, each in blocks.items()}
    flow = Flow(graph, works)
    if kind != "ieee":
        return flow
    counts = {
        loop: sum(i.operation.startswith("FFMA") for b in loop.blocks for i in blocks[b])
        for loop in flow.innermost()
    }
    main = max(counts, key=counts.__getitem__, default=None)
    inside = main.blocks if main else ()
    works |= {n: work(blocks[n], capability, kind, warps, True) for n in inside}
    return Flow(graph, works)
