"""Tiles of the symmetric Gram matrix of stacked views: each pair of samples is computed once.

Views are stacked to M x D, M = views x batch. The block of views u and v holds the products of
their samples; only blocks u <= v are computed, and of a block u = v only its upper triangle.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

GRAM_SIDE = 512
"""Side of the tiles of a Gram that is kept whole: smaller ones save little work and cost calls."""
GRAM_TILES, GRAM_STEP = 8, 64
"""On a GPU there are no more tiles than this along a view, of sides that are multiples of that:
starting the calls of more would take longer than their work."""
WORKSPACE_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}
"""Default workspace of a chunked implementation: tiles that fit in a cache, or that fill a GPU."""
REMEMBERED_ROWS = 16
"""Making the tiles of a small batch anew takes as long as computing some of them."""


@dataclass(frozen=True)
class Tile:
    """One product ``z[rows] @ z[columns].T``.

    Attributes:
        rows: samples of view u.
        columns: samples of view v.
        same_view: u = v: every pair of samples stands in the block twice.
        same_samples: the tile's diagonal holds a sample with itself, or with its other view.
    """

    rows: slice
    columns: slice
    same_view: bool
    same_samples: bool

    @property
    def mirrored(self) -> bool:
        """The transposed tile is another one, which is not computed."""
        return self.rows != self.columns


def tiles(batch: int, views: int, side: int) -> Iterable[Tile]:
    """Tiles of at most ``side`` x ``side``; the last of a row or column may be smaller."""
    few = views * math.ceil(batch / side) <= REMEMBERED_ROWS
    return _remembered_tiles(batch, views, side) if few else _tiles(batch, views, side)


@lru_cache(maxsize=16)
def _remembered_tiles(batch: int, views: int, side: int) -> tuple[Tile, ...]:
    return tuple(_tiles(batch, views, side))


def _tiles(batch: int, views: int, side: int) -> Iterator[Tile]:
    for u in range(views):
        for v in range(u, views):
            for i in range(0, batch, side):
                for j in range(i if u == v else 0, batch, side):
                    rows = slice(u * batch + i, u * batch + min(i + side, batch))
                    columns = slice(v * batch + j, v * batch + min(j + side, batch))
                    yield Tile(rows, columns, u == v, i == j)


def gram_side(batch: int, device: str) -> int:
    """Side of the tiles of a Gram that is kept whole.

    Args:
        batch: samples of a view.
        device: type of the device, such as "cpu".
    """
    if device != "cuda":
        return GRAM_SIDE
    return max(GRAM_SIDE, -(-batch // (GRAM_TILES * GRAM_STEP)) * GRAM_STEP)


def workspace_side(
    workspace_bytes: int | None, device: str, element_bytes: int, arrays: int
) -> int:
    """Side of the largest tile of which ``arrays`` fit in a workspace.

    Args:
        workspace_bytes: size of the workspace; None for the default of the device.
        device: type of the device, such as "cpu".
        element_bytes: bytes of an element of the dtype that the loss is computed in.
        arrays: tile-sized arrays alive at once.

    Raises:
        ValueError: a workspace that does not hold a single entry.
    """
    if workspace_bytes is None:
        workspace_bytes = WORKSPACE_BYTES.get(device, WORKSPACE_BYTES["cpu"])
    entry_bytes = arrays * element_bytes
    if not isinstance(workspace_bytes, int) or workspace_bytes < entry_bytes:
        raise ValueError(
            f"workspace_bytes must be a whole number of at least {entry_bytes}, "
            f"got {workspace_bytes!r}"
        )
    return math.isqrt(workspace_bytes // entry_bytes)


def gram_entries(batch: int, views: int, side: int) -> int:
    """Entries that the tiles compute: MACs of the Gram over its depth."""
    triangles = views * (batch**2 + _diagonal_entries(batch, side)) // 2
    return triangles + views * (views - 1) // 2 * batch**2


def mirrored_entries(batch: int, views: int, side: int) -> int:
    """Entries of the tiles that stand for two."""
    return gram_entries(batch, views, side) - views * _diagonal_entries(batch, side)


def _diagonal_entries(batch: int, side: int) -> int:
    """Entries of the tiles on the diagonal of one view's block."""
    whole, rest = divmod(batch, side)
    return whole * side**2 + rest**2
