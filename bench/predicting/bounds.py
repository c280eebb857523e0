"""What the compiled code of a kernel allows, without a GPU: a lower bound on its time.

The machine code is cut into blocks (``sass``). On its way through them a program that makes a tile
(``paths``) takes cycles of each pipe of a multiprocessor (``pipes``): those of the loop that makes
products, run as often as the depth needs, and those of the rest. From them:

1. A multiprocessor cannot be faster than its busiest pipe: the sum of a pipe's cycles over the
   tiles that the busiest multiprocessor gets, tiles / multiprocessors rounded up.
2. A program finishes a tile after it has made it, and its warps go through the code together, since
   barriers hold them: a tile takes the busiest pipe of its products, then the busiest pipe of the
   rest. So many tiles in turn as a program makes, and as a multiprocessor is given for each of the
   programs that fit on it (``resident``): these hide behind each other. Where one fits, nothing
   hides.

The bound is the larger. It is no prediction: latencies, conflicts of banks, misses of caches, the
writes of asynchronous copies into shared memory, loads through the L2 cache and its bandwidth, and
the clock under load are left out, and of each branch that depends on values the cheaper way is
taken. Nothing can be faster, but for the few tiles on the Gram's diagonal, which may write less
than is counted; much may be slower.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from lossbench.bench.predicting import audit, sass
from lossbench.bench.predicting.paths import Flow
from lossbench.bench.predicting.pipes import LANES, PIPES, SCHEDULERS, Rates, Work, rates, work

_REGISTERS = 256
"""Registers are given to a warp in units of this many ..."""
_SHARED = 128
"""... and shared memory to a program, in bytes ..."""
_RESERVED = 1024
"""... after those that the system takes (CUDA C++ Programming Guide, compute capability 8.0)."""


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
class Code:
    """Compiled code of a kernel.

    Attributes:
        capability: compute capability.
        operands: kind of operands, of ``configs.kind_of``.
        size: what a program takes.
        flow: its blocks.
    """

    capability: int
    operands: str
    size: Size
    flow: Flow


@dataclass(frozen=True)
class Task:
    """A launch.

    Attributes:
        tiles: that are made or finished; parts of a long depth count as tiles.
        macs: multiply-adds of each, 0 where a tile is only finished.
        programs: that share them.
    """

    tiles: int
    macs: int
    programs: int


@dataclass(frozen=True)
class Bound:
    """What the compiled code of a launch allows.

    Attributes:
        resident: programs that a multiprocessor holds.
        main: cycles of a tile's products, of each pipe.
        rest: cycles of a tile besides.
        cycles: of the launch, at least.
        limit: the pipe that limits it; two, where they wait for each other.
        share: of the peak of the tensor cores (of fp32, for "ieee"), at most.
    """

    resident: int
    main: Mapping[str, float]
    rest: Mapping[str, float]
    cycles: float
    limit: str
    share: float


def read(text: str, capability: int, operands: str, size: Size) -> Code:
    """Machine code, as ``nvdisasm -c`` prints it.

    Raises:
        ValueError: code that is not followed.
    """
    graph = sass.parse(text)
    blocks = {number: graph.nodes[number]["block"].instructions for number in graph}
    works = {n: work(each, capability, operands, size.warps) for n, each in blocks.items()}
    flow = Flow(graph, works)
    if operands == "ieee":  # the loop with the most multiply-adds makes products
        counts = {
            loop: sum(each.operation.startswith("FFMA") for b in loop.blocks for each in blocks[b])
            for loop in flow.innermost()
        }
        main = max(counts, key=counts.__getitem__, default=None)
        for number in main.blocks if main else ():
            works[number] = work(blocks[number], capability, operands, size.warps, by_fma=True)
    return Code(capability, operands, size, flow)


def compiled(launch: audit.Launch, capability: int) -> Code:
    """A launch as it is compiled.

    Raises:
        ValueError: code that is not followed, such as that of warps with different tasks.
    """
    found = audit.compiled(launch, capability)
    ptx, cubin = found.asm["ptx"], found.asm["cubin"]
    threads = re.search(r"\.reqntid (\d+)", ptx)
    warps = dict(launch.options).get("num_warps", SCHEDULERS)
    if threads is None or int(threads[1]) != LANES * warps:
        raise ValueError(f"{launch.name}: warps of different tasks are not followed")
    registers, _ = audit.resources(cubin, ptx)
    columns = getattr(found.metadata, "tmem_size", None) or 0
    size = Size(warps, registers, found.metadata.shared, columns)
    return read(audit.tool("nvdisasm", cubin, "-c"), capability, launch.operands, size)


def resident(size: Size, rate: Rates) -> int:
    """Programs that a multiprocessor holds at once, by CUDA's rules of occupancy.

    Each scheduler has a quarter of the registers, and of a program's warps.
    """
    of_warp = ceil(size.registers * LANES / _REGISTERS) * _REGISTERS
    warps = min(rate.warps, rate.registers // SCHEDULERS // of_warp * SCHEDULERS)
    shared = ceil((size.shared_bytes + _RESERVED) / _SHARED) * _SHARED
    limits = [rate.programs, warps // size.warps, rate.shared_kib * 1024 // shared]
    if size.tensor_columns:
        limits.append(rate.tensor_columns // size.tensor_columns)
    return min(limits)


def bound(code: Code, task: Task) -> Bound:
    """The least time of a launch.

    Args:
        code: of the kernel.
        task: what is launched.
    """
    rate = rates(code.capability)
    steps = _steps(code.flow, task.macs)
    whole, rest = (
        dict(zip(PIPES, _tile(code.flow, steps, without).cycles, strict=True))
        for without in (False, True)
    )
    main = {pipe: whole[pipe] - rest[pipe] for pipe in PIPES}
    here = resident(code.size, rate)
    most = ceil(task.tiles / rate.processors)
    busiest, of_main, of_rest = (max(PIPES, key=part.__getitem__) for part in (whole, main, rest))
    by_pipe = most * whole[busiest]
    turns = max(ceil(most / here), ceil(task.tiles / task.programs))
    in_turn = turns * (main[of_main] + rest[of_rest])
    cycles = max(by_pipe, in_turn)
    in_turn_limit = of_rest if not main[of_main] else f"{of_main} + {of_rest}"
    limit = busiest if by_pipe >= in_turn else in_turn_limit
    peak = task.tiles * task.macs / rate.tensor[code.operands] / rate.processors
    return Bound(here, main, rest, cycles, limit, peak / cycles)


def _steps(flow: Flow, macs: int) -> float:
    """Trips through the loop that makes products; some products may be made outside of it."""
    once, twice = (_tile(flow, steps).macs for steps in (1, 2))
    if not macs:
        return 1.0
    if twice == once:
        raise ValueError("no loop of the code makes products, but the kernel should")
    return (macs - (2 * once - twice)) / (twice - once)


def _tile(flow: Flow, steps: float, rest: bool = False) -> Work:
    """Work of a tile, in a program of many tiles that of one more."""
    one, two = (flow.least(steps, tiles, rest) for tiles in (1, 2))
    if one.macs == two.macs:
        return one
    cycles = tuple(b - a for a, b in zip(one.cycles, two.cycles, strict=True))
    return Work(two.macs - one.macs, two.stored - one.stored, cycles)
