"""Tile sizes and strategies by architecture: ``tuned.json``, which ``lossbench tune`` makes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

TABLE = Path(__file__).with_name("tuned.json")
STRATEGIES = ("fused", "cublas", "split")
PRECISIONS = ("ieee", "tf32")
COUNTED = "90"
"""Compute capability whose tiles are counted, and made in the interpreter: no GPU is needed."""
SPLIT_STEPS = 4
"""Steps through the depth that a part of it must have at least to be worth a program."""


@dataclass(frozen=True)
class Config:
    """How tiles are made on one architecture, for one kind of operands.

    Attributes:
        rows: of a tile.
        columns: of a tile; of two operands at once, as many as rows.
        step: features of a step.
        warps: of a program.
        stages: steps in flight.
        described: tiles are copied by the hardware, as tensor descriptors say.
        strip: columns that are finished at once; side of a block that is finished after cuBLAS or
            ``split_kernel`` made it.
        finish_warps: of a program that does.
        side: side of a super-block.
        product_side: side of a product that cuBLAS makes at once.
        fused_up_to: the largest depth at which a fused tile is faster than cuBLAS and a pass.
        processors: programs that fill the GPU: fewer tiles than that are split.
    """

    rows: int
    columns: int
    step: int
    warps: int
    stages: int
    described: bool
    strip: int
    finish_warps: int
    side: int
    product_side: int
    fused_up_to: int
    processors: int

    def __post_init__(self) -> None:
        # a finished block that is larger would read what no part of the depth was made for
        pairs = (
            ("rows", "strip"),
            ("columns", "rows"),
            ("side", "columns"),
            ("product_side", "strip"),
        )
        for name, part in pairs:
            whole, unit = getattr(self, name), getattr(self, part)
            if whole % unit:
                raise ValueError(f"{name} {whole} is no multiple of {part} {unit}")

    def of_operands(self, operands: int) -> "Config":
        """With tiles of so many operands at once: the registers hold no more."""
        return self if operands == 1 else replace(self, columns=self.rows)


@cache
def table() -> dict[str, dict[str, Config]]:
    """Compute capability, such as "90" -> kind of operands -> configuration."""
    found = json.loads(TABLE.read_text())
    return {
        capability: {kind: Config(**fields) for kind, fields in kinds.items()}
        for capability, kinds in found["configurations"].items()
    }


def kind_of(dtype: torch.dtype, precision: str) -> str:
    """Name of a kind of operands in the table."""
    return "16-bit" if dtype.itemsize == 2 else precision


_forced: Config | None = None


@contextmanager
def using(config: Config) -> Iterator[None]:
    """Make tiles by ``config`` instead of by the table."""
    global _forced
    before, _forced = _forced, config
    try:
        yield
    finally:
        _forced = before


def lookup(device: torch.device, kind: str) -> Config:
    """The configuration for a device: that of the newest architecture that is not newer."""
    return _forced if _forced is not None else table()[architecture(device)][kind]


def architecture(device: torch.device) -> str:
    """Compute capability in the table for a device: the newest that is not newer."""
    if device.type != "cuda":
        return COUNTED
    known = sorted(int(capability) for capability in table())
    major, minor = torch.cuda.get_device_capability(device)
    fitting = [each for each in known if each <= 10 * major + minor]
    return str(max(fitting, default=known[0]))


def strategy(config: Config, depth: int) -> str:
    """How to make the tiles of a depth that do not need to be split."""
    return "fused" if depth <= config.fused_up_to else "cublas"


def whole_tiles(config: Config, tiles: int, depth: int) -> int:
    """How many of so many tiles are each made by one program.

    The last ones, if they leave half of the GPU idle or more, are better split.
    """
    last = tiles % config.processors
    can_split = depth >= 2 * SPLIT_STEPS * config.step
    return tiles - last if can_split and 2 * last <= config.processors else tiles


def parts(config: Config, tiles: int, depth: int) -> int:
    """Parts of the depth, so that their programs fill the GPU once."""
    return max(1, min(config.processors // tiles, depth // (SPLIT_STEPS * config.step)))
