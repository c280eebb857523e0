"""The tiled Gram engine: launches of the kernels of ``tiles`` over the regions of a Gram."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kernels import configs
from kernels.configs import Config
from kernels.language import INTERPRETED, cdiv
from kernels.plan import Layout, Region
from kernels.tiles import finish_kernel, fused_kernel, merge_kernel, split_kernel
from losses.precision import fp32_products

MERGED_ROWS, MERGED_TILES = 64, 64
"""Rows that a program merges, and tiles of each that it reads at once."""


@dataclass(frozen=True)
class Epilogue:
    """What a loss does with each entry of the Gram.

    Attributes:
        kind: of ``tiles._finish``.
        entry: kernel function ``(rho, p0, p1) -> (h, dh/drho)``; None where ``kind`` says it all.
        exclude: leave out the pairs of a sample with itself, or with its other view.
        p0: first parameter of ``entry``; of "cross" what G is multiplied by, of the others what a
            score is.
        p1: second parameter of ``entry``.
        narrow: dtype of G where operands have 16 bits: bf16 has the range that any loss needs.
    """

    kind: str = "sum"
    entry: Any = None
    exclude: bool = True
    p0: float = 0.0
    p1: float = 0.0
    narrow: torch.dtype = torch.bfloat16


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


@dataclass(frozen=True)
class _Targets:
    """Where a region's results go.

    Attributes:
        out: partial sums, or statistics of rows.
        out_columns: statistics of columns.
        gradients: of one super-block, with respect to each operand's Gram.
        origin: the super-block.
        lse: of every row.
        weights: of every row's logsumexp in the loss.
    """

    out: Tensor
    out_columns: Tensor
    gradients: list[Tensor]
    origin: Region
    lse: Tensor
    weights: Tensor


def sum_pairs(gram: Gram, epilogue: Epilogue, needs_grad: bool) -> tuple[Tensor, list[Tensor]]:
    """Sum of an epilogue over all pairs.

    Returns:
        The sum, fp32, and where a gradient is needed either G of each operand, which ``multiply``
        takes, or if it is not kept its product with ``z``, fp32.
    """
    slots: list[Tensor] = []
    kept: list[Tensor] = []
    keeps = gram.layout.keeps
    product = _Product(gram) if needs_grad and not keeps else None
    for block in gram.super_blocks():
        gradients = _gradients(gram, epilogue, block) if needs_grad else []
        for region, tile in _regions(gram, block):
            slots.append(gram.renorm.new_zeros(region.down // tile * (region.across // tile)))
            empty = gram.renorm
            _run(gram, epilogue, region, _Targets(slots[-1], empty, gradients, block, empty, empty))
        if product is not None:
            product.add(gradients, block)
        else:
            kept = gradients
    if product is not None:
        kept = [product.finish()]
    return torch.cat(slots).sum(dtype=torch.float64).float(), kept


def multiply(gram: Gram, gradients: list[Tensor]) -> Tensor:
    """Product of a kept G with ``z``, fp32."""
    product = _Product(gram)
    product.add(gradients, gram.layout.gram)
    return product.finish()


def logsumexp(gram: Gram, epilogue: Epilogue) -> Tensor:
    """Each row's logsumexp of its scores; 0 for rows that only fill a tile."""
    largest = torch.full_like(gram.renorm, float("-inf"))
    total = torch.zeros_like(gram.renorm)
    empty = gram.renorm
    for block in gram.super_blocks():
        for region, tile in _regions(gram, block):
            down, across = region.down // tile, region.across // tile
            of_rows = _statistics(largest, region.down, across, region.triangular)
            of_columns = _statistics(largest, region.across, down, region.triangular)
            _run(gram, epilogue, region, _Targets(of_rows, of_columns, [], block, empty, empty))
            _merge(of_rows, largest, total, region.top)
            _merge(of_columns, largest, total, region.left)
    return (largest + total.log()).masked_fill_(total == 0, 0.0)


def softmax_gradient(gram: Gram, epilogue: Epilogue, lse: Tensor, weights: Tensor) -> Tensor:
    """Gradient with respect to ``z``, fp32, of ``sum(weights * logsumexp of each row)``."""
    product = _Product(gram)
    for block in gram.super_blocks():
        gradients = _gradients(gram, epilogue, block)
        for region, _ in _regions(gram, block):
            _run(gram, epilogue, region, _Targets(lse, lse, gradients, block, lse, weights))
        product.add(gradients, block)
    return product.finish()


def _regions(gram: Gram, block: Region) -> list[tuple[Region, int]]:
    """Regions of a super-block that are launched at once, and the side of their tiles."""
    config = gram.config
    strategy = _strategy(gram, block)
    if strategy == "cublas":
        return [(region, config.finish_block) for region in block.cut(config.product_side)]
    return [(block, config.finish_block if strategy == "split" else config.block)]


def _strategy(gram: Gram, block: Region) -> str:
    return gram.strategy or configs.strategy(
        gram.config, _tiles(block, gram.config.block), gram.layout.depth
    )


def _tiles(region: Region, block: int) -> int:
    down, across = region.down // block, region.across // block
    return down * (down + 1) // 2 if region.triangular else down * across


def _gradients(gram: Gram, epilogue: Epilogue, block: Region) -> list[Tensor]:
    operands = 2 if epilogue.kind == "cross" else 1
    shape = (block.down, block.across)
    dtype = epilogue.narrow if gram.z.dtype.itemsize == 2 else torch.float32
    return [gram.z.new_empty(shape, dtype=dtype) for _ in range(operands)]


def _run(gram: Gram, epilogue: Epilogue, region: Region, targets: _Targets) -> None:
    """Make the tiles of a region and finish them."""
    config, layout = gram.config, gram.layout
    down, across = region.top - targets.origin.top, region.left - targets.origin.left
    g = [gradient[down:, across:] for gradient in targets.gradients]
    mirrors = [gradient[across:, down:] for gradient in targets.gradients]
    triangular = region.triangular
    finish = {
        "out": targets.out,
        "out_columns": targets.out_columns,
        "g": (g or [targets.out])[0],
        "g_mirror": (mirrors or [targets.out])[0],
        "g_other": (g or [targets.out])[-1],
        "g_other_mirror": (mirrors or [targets.out])[-1],
        "width": targets.origin.across,
        "renorm": gram.renorm,
        "lse": targets.lse,
        "row_weights": targets.weights,
        "batch": layout.batch,
        "rows": layout.rows,
        "top": region.top,
        "left": region.left,
        "p0": epilogue.p0,
        "p1": epilogue.p1,
        "ENTRY": epilogue.entry,
        "KIND": epilogue.kind,
        "EXCLUDE": epilogue.exclude,
        "GRADIENT": bool(targets.gradients),
        "MIRROR": targets.origin.triangular,
        "TRIANGULAR": triangular,
    }
    make = {
        "depth": layout.depth,
        "BLOCK": config.block,
        "STEP": config.step,
        "GROUP": config.group,
        "PRECISION": gram.precision,
        "UPCAST": INTERPRETED and gram.z.dtype == torch.bfloat16,
        "num_warps": config.warps,
        "num_stages": config.stages,
    }
    strategy = _strategy(gram, targets.origin)
    if strategy == "fused":
        tiles = {
            "tiles_down": region.down // config.block,
            "tiles_across": region.across // config.block,
        }
        grid = (tiles["tiles_down"] * tiles["tiles_across"],)
        fused_kernel[grid](z=gram.z, **finish, **make, **tiles)
        return
    operands = 2 if epilogue.kind == "cross" else 1
    if strategy == "cublas":
        parts = 1
        products = _products(gram, region, operands)
    else:
        parts, products = _split(gram, region, operands, make)
    tiles = {
        "tiles_down": region.down // config.finish_block,
        "tiles_across": region.across // config.finish_block,
    }
    grid = (tiles["tiles_down"] * tiles["tiles_across"],)
    finish_kernel[grid](
        products=products, parts=parts, **finish, **tiles,
        BLOCK=config.finish_block, num_warps=config.finish_warps,
    )  # fmt: skip


def _products(gram: Gram, region: Region, operands: int) -> Tensor:
    """Products of a region by cuBLAS, one matrix for each operand."""
    products = gram.renorm.new_empty(operands, region.down, region.across)
    for operand, out in enumerate(products):
        z = gram.z[operand * gram.layout.rows :]
        left = z[region.top : region.top + region.down]
        right = z[region.left : region.left + region.across]
        matrix_product(left, right.T, out, gram.precision)
    return products


def _split(gram: Gram, region: Region, operands: int, make: dict[str, Any]) -> tuple[int, Tensor]:
    """Products of a region in parts of the depth."""
    config, depth = gram.config, gram.layout.depth
    wanted = configs.parts(config, _tiles(region, config.block), depth)
    part = cdiv(cdiv(depth, wanted), config.step) * config.step
    parts = cdiv(depth, part)
    products = gram.renorm.new_empty(operands, parts, region.down, region.across)
    down, across = region.down // config.block, region.across // config.block
    split_kernel[(down * across, parts, operands)](
        z=gram.z, products=products, rows=gram.layout.rows, part=part, top=region.top,
        left=region.left, tiles_down=down, tiles_across=across,
        TRIANGULAR=region.triangular, **make,
    )  # fmt: skip
    return parts, products


class _Product:
    """``G z`` in fp32, added up over super-blocks.

    Where the rows' exact mean is known, operands of 16 bits are rounded once more, to the dtype of
    G, less what the rounded rows of their view share: of rows that are nearly equal, rounding would
    leave little of their differences, which are all that the gradient has once its part along each
    row is gone. Their exact mean takes the place of what they share, in fp32.
    """

    def __init__(self, gram: Gram) -> None:
        self._gram = gram
        self._result = torch.zeros_like(gram.z, dtype=torch.float32)
        self._shared: Tensor | None = None
        if gram.mean is not None:
            views = gram.z.unflatten(0, (-1, gram.layout.rows))
            self._shared = views.sum(dim=1, dtype=torch.float32) / gram.layout.batch
            self._sums = self._result.new_zeros(len(views), len(gram.z))

    def add(self, gradients: list[Tensor], block: Region) -> None:
        """Add the products of a super-block's G, and of its mirror image, with ``z``."""
        for operand, g in enumerate(gradients):
            first = operand * self._gram.layout.rows
            rows = slice(first + block.top, first + block.top + block.down)
            columns = slice(first + block.left, first + block.left + block.across)
            self._add(rows, g, columns)
            if not block.triangular:
                self._add(columns, g.T, rows)

    def _add(self, rows: slice, g: Tensor, columns: slice) -> None:
        right = self._gram.z[columns]
        if self._shared is not None:
            right = self._without_shared(rows, g, columns)
        _add_product(self._result[rows], g, right, self._gram.precision)

    def _without_shared(self, rows: slice, g: Tensor, columns: slice) -> Tensor:
        """Rows ``columns`` less what they share; how much of that the product misses is noted."""
        assert self._shared is not None
        z, length = self._gram.z, self._gram.layout.rows
        found = torch.empty_like(z[columns], dtype=g.dtype)
        for view, shared in enumerate(self._shared):
            first, last = max(columns.start, view * length), min(columns.stop, (view + 1) * length)
            if first < last:
                inside = slice(first - columns.start, last - columns.start)
                torch.sub(z[first:last], shared, out=found[inside])
                self._sums[view, rows] += g[:, inside].sum(dim=1, dtype=torch.float32)
        return found

    def finish(self) -> Tensor:
        """The product."""
        if self._gram.mean is not None:
            _add_product(self._result, self._sums.T, self._gram.mean, "ieee")
        return self._result


def _statistics(like: Tensor, length: int, tiles: int, triangular: bool) -> Tensor:
    """Largest score and sum of exponentials of each row in each tile."""
    found = like.new_empty(2, length, tiles)
    if triangular:  # the tiles below the diagonal say nothing
        found[0].fill_(float("-inf"))
        found[1].zero_()
    return found


def _merge(found: Tensor, largest: Tensor, total: Tensor, first: int) -> None:
    _, length, tiles = found.shape
    grid = (cdiv(length, MERGED_ROWS),)
    merge_kernel[grid](
        found, largest[first:], total[first:], length, tiles,
        LENGTH=MERGED_ROWS, TILES=MERGED_TILES,
    )  # fmt: skip


def matrix_product(left: Tensor, right: Tensor, out: Tensor, precision: str) -> None:
    """``out = left @ right`` in fp32, by the library that is best at it."""
    if left.dtype == torch.float32:
        with fp32_products(precision):
            torch.mm(left, right, out=out)
    elif left.is_cuda:
        torch.mm(left, right, out_dtype=torch.float32, out=out)
    else:
        torch.mm(left.float(), right.float(), out=out)


def _add_product(out: Tensor, left: Tensor, right: Tensor, precision: str) -> None:
    """``out += left @ right``, in fp32."""
    assert left.dtype == right.dtype  # a GPU multiplies no others
    if left.dtype == torch.float32:
        with fp32_products(precision):
            torch.addmm(out, left, right, out=out)
    elif left.is_cuda:
        torch.addmm(out, left, right, out_dtype=torch.float32, out=out)
    else:
        torch.addmm(out, left.float(), right.float(), out=out)
