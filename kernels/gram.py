"""What the engine sweeps, and what a loss makes of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lossbench.kernels import configs
from lossbench.kernels.configs import Config
from lossbench.kernels.plan import Layout, Region


@dataclass(frozen=True)
class Epilogue:
    """What a loss does with each entry of the Gram.

    Attributes:
        kind: of ``finish.finish``.
        entry: kernel function ``(rho, p0, p1) -> (h, dh/drho)``; None where ``kind`` says it all.
        near: cheaper kernel function of entries near 0, ``(x, y, weight, p0, p1) -> (h, weight
            dh/dx)`` of a product of rows x, which is rho / c, and y = x c^2; None: there is none.
        near_holds: kernel function ``(largest |rho|, p0, p1) -> whether near does``.
        exclude: leave out the pairs of a sample with itself, or with its other view.
        p0: first parameter of ``entry``; of "cross" what G is multiplied by, of the others what a
            score is.
        p1: second parameter of ``entry``.
        narrow: dtype of G where operands have 16 bits: bf16 has the range that any loss needs.
    """

    kind: str = "sum"
    entry: Any = None
    near: Any = None
    near_holds: Any = None
    exclude: bool = True
    p0: float = 0.0
    p1: float = 0.0
    narrow: torch.dtype = torch.bfloat16

    @property
    def operands(self) -> int:
        """Grams whose tiles are made at once."""
        return 2 if self.kind == "cross" else 1


@dataclass(frozen=True)
class Gram:
    """A Gram that is to be swept.

    Attributes:
        z: stacked rows, padded: views * rows x depth.
        renorm: what the products of each row are multiplied by.
        layout: of ``z``.
        strategy: one of ``configs.STRATEGIES``; "" for the fastest by the table.
        precision: one of ``configs.PRECISIONS``, of fp32 operands.
        mean: views x depth, fp32: the mean row of each view before it was rounded to 16 bits.
    """

    z: Tensor
    renorm: Tensor
    layout: Layout
    strategy: str = ""
    precision: str = "ieee"
    mean: Tensor | None = None
    config: Config = field(init=False)

    def __post_init__(self) -> None:
        kind = configs.kind_of(self.z.dtype, self.precision)
        object.__setattr__(self, "config", configs.lookup(self.z.device, kind))

    def super_blocks(self) -> Iterator[Region]:
        """Regions whose gradients are multiplied while they are in the workspace."""
        whole = self.layout.gram
        return whole.cut(whole.down if self.layout.keeps else self.config.side)
