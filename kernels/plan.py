"""How a Gram is cut up: from shapes alone, so that costs can be known without a device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lossbench.kernels.language import round_up

ROW_MULTIPLE = 128
"""Rows of a view are padded to whole rows of tiles, of any shipped configuration, ..."""
COLUMN_MULTIPLE = 256
"""... those that are columns of one region to whole columns of tiles ..."""
DEPTH_MULTIPLE = 64
"""... and features to whole steps."""
KEPT_SIDE = 8192
"""A Gram of up to this many rows fits in the workspace (256 MiB in fp32): its gradient is kept."""


@dataclass(frozen=True)
class Region:
    """A rectangle of the Gram, in padded rows.

    Attributes:
        top: first row.
        left: first column.
        down: rows.
        across: columns.
    """

    top: int
    left: int
    down: int
    across: int

    @property
    def triangular(self) -> bool:
        """Its rows are its columns: one triangle has every pair."""
        return self.top == self.left

    def tiles(self, rows: int, columns: int) -> int:
        """Tiles that cover it; of a triangular one those with an entry on or above the diagonal."""
        across = self.across // columns
        if self.triangular:
            return columns // rows * across * (across + 1) // 2
        return self.down // rows * across

    def cut(self, side: int) -> "Iterator[Region]":
        """Regions of at most ``side`` x ``side`` that cover it, or its upper triangle."""
        for top in range(0, self.down, side):
            for left in range(top if self.triangular else 0, self.across, side):
                down, across = min(side, self.down - top), min(side, self.across - left)
                yield Region(self.top + top, self.left + left, down, across)


@dataclass(frozen=True)
class Layout:
    """Padded shape of what the Gram is made of, and which part of it a loss needs.

    Attributes:
        batch: rows of a view that are not padding.
        dim: features that are not padding.
        rows: rows of a view.
        depth: features.
        views: views that are stacked.
        both: pairs of rows of both views only, not those of one view.
    """

    batch: int
    dim: int
    rows: int
    depth: int
    views: int = 2
    both: bool = False

    @property
    def gram(self) -> Region:
        """The part of the Gram that the loss needs."""
        if self.both:
            return Region(0, self.rows, self.rows, self.rows)
        return Region(0, 0, self.views * self.rows, self.views * self.rows)

    @property
    def keeps(self) -> bool:
        """The gradient with respect to the whole Gram is kept for the backward pass."""
        return self.gram.down <= KEPT_SIDE

    @property
    def macs(self) -> int:
        """Multiply-adds of the Gram: each pair of rows once, half of the square of all."""
        pairs = self.batch**2 if self.both else (self.views * self.batch) ** 2 // 2
        return pairs * self.dim


def layout(shape: Sequence[int], views: int = 2, both: bool = False) -> Layout:
    """Pad a batch of views.

    Args:
        shape: N x D.
        views: that are stacked.
        both: pairs of both views only.
    """
    batch, dim = shape
    across = 1 if both else views  # views that are columns of a region
    rows = round_up(round_up(batch, COLUMN_MULTIPLE // across), ROW_MULTIPLE)
    depth = round_up(dim, DEPTH_MULTIPLE)
    return Layout(batch, dim, rows, depth, views, both)
