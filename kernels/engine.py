"""The tiled Gram engine: launches of the kernels of ``tiles`` over the regions of a Gram."""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from lossbench.kernels import configs
from lossbench.kernels.gram import Epilogue, Gram
from lossbench.kernels.language import INTERPRETED, cdiv
from lossbench.kernels.plan import Region
from lossbench.kernels.product import Product, matrix_product
from lossbench.kernels.tiles import finish_kernel, fused_kernel, merge_kernel, split_kernel

MERGED_ROWS, MERGED_TILES = 64, 64
"""Rows that a program merges, and tiles of each that it reads at once."""


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
    product = Product(gram) if needs_grad and not keeps else None
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
    product = Product(gram)
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
    product = Product(gram)
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
    config, finish, make = gram.config, _finish(gram, epilogue, region, targets), _make(gram)
    strategy = _strategy(gram, targets.origin)
    if strategy == "fused":
        tiles = _grid(region, config.block)
        fused_kernel[(prod(tiles.values()),)](z=gram.z, **finish, **make, **tiles)
        return
    operands = 2 if epilogue.kind == "cross" else 1
    if strategy == "cublas":
        parts, products = 1, _products(gram, region, operands)
    else:
        parts, products = _split(gram, region, operands, make)
    tiles = _grid(region, config.finish_block)
    finish_kernel[(prod(tiles.values()),)](
        products=products, parts=parts, **finish, **tiles,
        BLOCK=config.finish_block, num_warps=config.finish_warps,
    )  # fmt: skip


def _grid(region: Region, block: int) -> dict[str, int]:
    """Tiles of a region."""
    return {"tiles_down": region.down // block, "tiles_across": region.across // block}


def _make(gram: Gram) -> dict[str, Any]:
    """What a kernel needs that makes tiles."""
    config = gram.config
    return {
        "depth": gram.layout.depth,
        "BLOCK": config.block,
        "STEP": config.step,
        "GROUP": config.group,
        "PRECISION": gram.precision,
        "UPCAST": INTERPRETED and gram.z.dtype == torch.bfloat16,
        "num_warps": config.warps,
        "num_stages": config.stages,
    }


def _finish(gram: Gram, epilogue: Epilogue, region: Region, targets: _Targets) -> dict[str, Any]:
    """What a kernel needs that finishes tiles; tensors that it does not use are any."""
    down, across = region.top - targets.origin.top, region.left - targets.origin.left
    g = [gradient[down:, across:] for gradient in targets.gradients] or [targets.out]
    mirrors = [gradient[across:, down:] for gradient in targets.gradients] or [targets.out]
    return {
        "out": targets.out,
        "out_columns": targets.out_columns,
        "g": g[0],
        "g_mirror": mirrors[0],
        "g_other": g[-1],
        "g_other_mirror": mirrors[-1],
        "width": targets.origin.across,
        "renorm": gram.renorm,
        "lse": targets.lse,
        "row_weights": targets.weights,
        "batch": gram.layout.batch,
        "rows": gram.layout.rows,
        "top": region.top,
        "left": region.left,
        "p0": epilogue.p0,
        "p1": epilogue.p1,
        "ENTRY": epilogue.entry,
        "KIND": epilogue.kind,
        "EXCLUDE": epilogue.exclude,
        "GRADIENT": bool(targets.gradients),
        "MIRROR": targets.origin.triangular,
        "TRIANGULAR": region.triangular,
    }


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
    tiles = _grid(region, config.block)
    split_kernel[(prod(tiles.values()), parts, operands)](
        z=gram.z, products=products, rows=gram.layout.rows, part=part, top=region.top,
        left=region.left, TRIANGULAR=region.triangular, **tiles, **make,
    )  # fmt: skip
    return parts, products


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
