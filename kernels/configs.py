"""Tile sizes and strategies by architecture: ``tuned.json``, which ``lossbench tune`` makes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

TABLE = Path(__file__).with_name("tuned.json")
STRATEGIES = ("fused", "cublas", "split")
PRECISIONS = ("ieee", "tf32")
SPLIT_STEPS = 4
"""Steps through the depth that a part of it must have at least to be worth a program."""


@dataclass(frozen=True)
class Config:
    """How tiles are made on one architecture, for one kind of operands.

    Attributes:
        block: side of a tile.
        step: features of a step.
        warps: of a program.
        stages: steps in flight.
        group: tiles of a column that run next to each other.
        finish_block: side of a tile that is finished after cuBLAS or ``split_kernel`` made it.
        finish_warps: of a program that does.
        side: side of a super-block.
        product_side: side of a product that cuBLAS makes at once.
        fused_up_to: the largest depth at which a fused tile is faster than cuBLAS and a pass.
        processors: programs that fill the GPU: fewer tiles than that are split.
    """

    block: int
    step: int
    warps: int
    stages: int
    group: int
    finish_block: int
    finish_warps: int
    side: int
    product_side: int
    fused_up_to: int
    processors: int

    def __post_init__(self) -> None:
        # a finished tile that is larger would read what no part of the depth was made for
        for name, tile in (("block", self.finish_block), ("product_side", self.finish_block)):
            if getattr(self, name) % tile:
                raise ValueError(
                    f"{name} {getattr(self, name)} is no multiple of finish_block {tile}"
                )
        if self.side % self.block:
            raise ValueError(f"side {self.side} is no multiple of block {self.block}")


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
    if _forced is not None:
        return _forced
    known = sorted(int(capability) for capability in table())
    capability = known[0]
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        capability = max([c for c in known if c <= 10 * major + minor], default=capability)
    return table()[str(capability)][kind]


def strategy(config: Config, tiles: int, depth: int) -> str:
    """How to make tiles.

    Args:
        config: of the device.
        tiles: to be made.
        depth: features.
    """
    if tiles < config.processors and depth >= 2 * SPLIT_STEPS * config.step:
        return "split"
    return "fused" if depth <= config.fused_up_to else "cublas"


def parts(config: Config, tiles: int, depth: int) -> int:
    """Parts of the depth, so that their programs fill the GPU once."""
    return max(1, min(config.processors // tiles, depth // (SPLIT_STEPS * config.step)))
