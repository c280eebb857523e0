"""What an instruction takes of each pipe of a streaming multiprocessor: ``pipes.json``.

Costs are cycles of the whole multiprocessor, which issues one instruction of a warp a cycle on each
of its four schedulers.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lossbench.bench.predicting.sass import Instruction

TABLE = Path(__file__).with_name("pipes.json")
PIPES = ("tensor", "issue", "fma", "alu", "mufu", "shuffle", "shared")
"""Tensor cores; schedulers; multiply-adds of fp32 and integers; comparisons, selections, logic and
integer additions; special functions and conversions; exchanges of lanes; shared memory."""
LANES, SCHEDULERS, GROUP = 32, 4, 4
"""Threads of a warp, schedulers, and warps that one HGMMA takes."""

_OPERATIONS = {
    "fma": ("FFMA", "FMUL", "FADD", "FFMA2", "FMUL2", "FADD2", "IMAD"),
    "compare": (
        *("FSEL", "FSETP", "FSET", "FMNMX", "SEL", "ISETP", "IMNMX", "VIMNMX", "LOP3", "SHF"),
        *("PRMT", "PLOP3", "F2FP", "SGXT"),
    ),
    "integer": ("IADD3", "IADD", "VIADD", "LEA", "IABS"),
    "mufu": ("MUFU", "I2F", "F2I", "I2I", "POPC", "FLO", "BREV"),
    "shuffle": ("SHFL",),
}
_CLASSES = {name: kind for kind, names in _OPERATIONS.items() for name in names}
_PIPE = {"compare": "alu", "integer": "alu"}
_PACKED = ("FFMA2", "FMUL2", "FADD2")
_ONE_THREAD = ("UTCHMMA", "UTMALDG", "UTMASTG", "UTMAREDG", "UBLKCP")
_WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}


@dataclass(frozen=True)
class Rates:
    """A streaming multiprocessor of one compute capability.

    Attributes:
        gpu: in ``gpus.json``.
        processors: multiprocessors of that GPU.
        tensor: kind of operands -> dense multiply-adds in a cycle; "ieee" those of fp32.
        lanes: class of instructions -> lanes that finish in a cycle.
        shared_bytes: of shared memory that are read or written in a cycle.
        registers: of 32 bits.
        shared_kib: shared memory, KiB.
        warps: that may reside.
        programs: that may reside.
        tensor_columns: of tensor memory, 0 where there is none.
    """

    gpu: str
    processors: int
    tensor: Mapping[str, int]
    lanes: Mapping[str, int]
    shared_bytes: int
    registers: int
    shared_kib: int
    warps: int
    programs: int
    tensor_columns: int


@cache
def rates(capability: int) -> Rates:
    """Rates and sizes of a compute capability in the table."""
    sheet = json.loads(TABLE.read_text())["capabilities"][str(capability)]
    lanes = {kind: sheet[kind][0] for kind in _OPERATIONS}
    tensor = {kind: figure[0] for kind, figure in sheet["tensor"].items()}
    sizes = ("processors", "shared_bytes", "registers", "shared_kib", "warps", "programs")
    return Rates(
        sheet["gpu"],
        tensor={**tensor, "ieee": lanes["fma"]},
        lanes=lanes,
        tensor_columns=sheet.get("tensor_columns", [0])[0],
        **{name: sheet[name][0] for name in sizes},
    )


@dataclass(frozen=True)
class Work:
    """What instructions do and take, of all warps of a program.

    Attributes:
        macs: multiply-adds of matrix products.
        stored: bytes written to memory; a bulk store, whose size is not in the code, counts as
            more than any other.
        cycles: of each of ``PIPES``.
    """

    macs: float = 0.0
    stored: float = 0.0
    cycles: tuple[float, ...] = (0.0,) * len(PIPES)


def work(
    instructions: Sequence[Instruction],
    capability: int,
    kind: str,
    warps: int,
    by_fma: bool = False,
) -> Work:
    """What a block of instructions does and takes.

    Args:
        instructions: of the block.
        capability: compute capability.
        kind: of operands, of ``configs.kind_of``.
        warps: of a program.
        by_fma: FFMA are products of matrices.
    """
    # a block of what one thread does, unless it is left out by a predicate, is run by one warp
    if any(i.operation in _ONE_THREAD and not i.predicated for i in instructions):
        warps = 1
    found: dict[str, float] = defaultdict(float)
    rate = rates(capability)
    for position, each in enumerate(instructions):
        found["issue"] += warps / SCHEDULERS
        lanes = _CLASSES.get(each.operation)
        if lanes is not None:
            pair = 2 if each.operation in _PACKED else 1
            found[_PIPE.get(lanes, lanes)] += pair * warps * LANES / rate.lanes[lanes]
            if by_fma and each.operation.startswith("FFMA"):
                found["macs"] += pair * warps * LANES
        macs, operand_bytes = _product(each, instructions[:position], kind, warps)
        found["macs"] += macs
        found["tensor"] += macs / rate.tensor[kind] if macs else 0
        moved = operand_bytes + warps * LANES * _shared_bytes(each)
        found["shared"] += moved / rate.shared_bytes
        found["stored"] += warps * LANES * _width(each) if each.operation in ("STG", "ST") else 0
        # UBLKCP.S.G reads memory
        found["stored"] += 2.0**40 if each.name.startswith(("UTMASTG", "UBLKCP.G")) else 0
    return Work(found["macs"], found["stored"], tuple(found[pipe] for pipe in PIPES))


def _product(
    instruction: Instruction, before: Sequence[Instruction], kind: str, warps: int
) -> tuple[int, int]:
    """Multiply-adds of a tensor-core instruction, and bytes of shared memory that it reads."""
    name, size = instruction.name, 4 if kind == "tf32" else 2
    if instruction.operation == "HMMA":
        shape = re.match(r"HMMA\.(16)(8)(16|8|4)\b", name)
        assert shape is not None, name
        m, n, k = map(int, shape.groups())
        return warps * m * n * k, 0
    if instruction.operation == "HGMMA":
        shape = re.match(r"HGMMA\.(\d+)x(\d+)x(\d+)", name)
        assert shape is not None, name
        m, n, k = map(int, shape.groups())
        # "R24, gdesc[UR8], R24": one descriptor stands for both operands; "R24, R4, gdesc[UR8]": A
        # comes from registers
        own = 0 if re.match(r"R\d+, R\d+", instruction.operands) else m * k
        return warps // GROUP * m * n * k, warps // GROUP * size * (own + n * k)
    if instruction.operation == "UTCHMMA":
        m, n = _descriptor_shape(instruction, before)
        k = 32 // size
        own = 0 if instruction.operands.startswith("tmem") else m * k
        return m * n * k, size * (own + n * k)
    return 0, 0


def _descriptor_shape(instruction: Instruction, before: Sequence[Instruction]) -> tuple[int, int]:
    """M and N of a tcgen05.mma: in its instruction descriptor, a constant (PTX ISA, tcgen05)."""
    register = re.search(r"idesc\[(UR\d+)\]", instruction.operands)
    assert register is not None, instruction.operands
    for each in reversed(before):
        constant = re.match(rf"{register[1]}, (0x[0-9a-f]+)$", each.operands)
        if each.operation == "UMOV" and constant:
            bits = int(constant[1], 16)
            return (bits >> 24 & 31) << 4, (bits >> 17 & 63) << 3
    raise ValueError(f"{instruction.name}: its descriptor is no constant of its block")


def _width(instruction: Instruction) -> int:
    """Bytes of a thread."""
    return next((w for part, w in _WIDTHS.items() if part in instruction.name.split(".")), 4)


def _shared_bytes(instruction: Instruction) -> int:
    """Bytes of shared memory that a thread reads or writes: of a word at least.

    A wide load may be a broadcast, which takes one cycle whatever its width.
    """
    if instruction.operation in ("LDS", "ATOMS"):
        return 0 if instruction.operands.startswith("RZ") else 4
    if instruction.operation == "STS":
        return max(4, _width(instruction))
    if instruction.operation in ("LDSM", "STSM"):  # matrices of 8 x 8 x 16 bits
        matrices = re.search(r"88\.(\d)", instruction.name)
        return 4 * int(matrices[1]) if matrices else 4
    return 0
