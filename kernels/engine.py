"""The tiled Gram engine: launches of the kernels of ``tiles`` over the regions of a Gram."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lossbench.kernels import configs
from lossbench.kernels.configs import Config
from lossbench.kernels.gram import Epilogue, Gram
from lossbench.kernels.language import INTERPRETED, cdiv, describe_tiles
from lossbench.kernels.plan import Region
from lossbench.kernels.product import Product, RowSums, matrix_product
from lossbench.kernels.tiles import finish_kernel, fused_kernel, merge_kernel, split_kernel

MERGED_ROWS, MERGED_PARTS = 32, 64
"""Rows that a program merges, and strips of each that it reads at once."""


@dataclass(frozen=True)
class _Targets:
    """Where a region's results go, and what they depend on.

    Attributes:
        gradients: of one super-block, with respect to each operand's Gram.
        origin: the super-block.
        of_rows: what each strip says of its rows: logsumexps, sums of G; any tensor if nothing.
        of_columns: what each strip says of its columns.
        lse: of every row.
        weights: of every row's logsumexp in the loss.
    """

    gradients: list[Tensor]
    origin: Region
    of_rows: Tensor
    of_columns: Tensor
    lse: Tensor
    weights: Tensor


def sum_pairs(
    gram: Gram, epilogue: Epilogue, needs_grad: bool
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Sum of an epilogue over all pairs.

    Returns:
        The sum, fp32; where a gradient is needed either G of each operand or, if it is not kept,
        its product with ``z``, fp32; and the sums of G's rows, which ``multiply`` takes.
    """
    slots: list[Tensor] = []
    kept: list[Tensor] = []
    sums = RowSums(gram, needs_grad)
    product = Product(gram, sums.found) if needs_grad and not gram.layout.keeps else None
    for block in gram.super_blocks():
        gradients = _gradients(gram, epilogue, block) if needs_grad else []
        slots += _sweep(gram, epilogue, block, gradients, sums)
        if product is not None:
            product.add(gradients, block)
        else:
            kept = gradients
    if product is not None:
        kept = [product.finish()]
    return torch.cat(slots).sum(dtype=torch.float64).float(), kept, sums.found


def multiply(gram: Gram, gradients: list[Tensor], sums: Tensor) -> Tensor:
    """Product of a kept G with ``z``, fp32.

    Args:
        gram: whose rows are multiplied.
        gradients: G of each operand.
        sums: of G's rows, as ``sum_pairs`` found them.
    """
    product = Product(gram, sums)
    product.add(gradients, gram.layout.gram)
    return product.finish()


def logsumexp(gram: Gram, epilogue: Epilogue) -> Tensor:
    """Each row's logsumexp of its scores; 0 for rows that only fill a tile."""
    largest = torch.full_like(gram.renorm, float("-inf"))
    total = torch.zeros_like(gram.renorm)
    for block in gram.super_blocks():
        for region in _regions(gram, block):
            said = _statistics(gram, region, 2)
            for each in said:
                each[0].fill_(float("-inf"))
            _run(gram, epilogue, region, _Targets([], block, *said, total, total))
            for each, first in zip(said, (region.top, region.left), strict=True):
                _merge(each, largest[first:], total[first:])
    return ((largest + total.log2()) * math.log(2)).masked_fill_(total == 0, 0)


def softmax_gradient(gram: Gram, epilogue: Epilogue, lse: Tensor, weights: Tensor) -> Tensor:
    """Gradient with respect to ``z``, fp32, of ``sum(weights * logsumexp of each row)``."""
    sums = RowSums(gram, needs_grad=True)
    product = Product(gram, sums.found)
    for block in gram.super_blocks():
        gradients = _gradients(gram, epilogue, block)
        _sweep(gram, epilogue, block, gradients, sums, lse, weights)
        product.add(gradients, block)
    return product.finish()


def _sweep(
    gram: Gram, epilogue: Epilogue, block: Region, gradients: list[Tensor], sums: RowSums,
    *facts: Tensor,
) -> list[Tensor]:  # fmt: skip
    """Make the regions of a super-block; returns their partial sums."""
    unused = gram.renorm
    slots = []
    for region in _regions(gram, block):
        said = _statistics(gram, region, 1) if sums.wanted else (unused, unused)
        targets = _Targets(gradients, block, *said, *(facts or (unused, unused)))
        slots.append(_run(gram, epilogue, region, targets))
        if sums.wanted:
            sums.add(region, *said)
    return slots


def _regions(gram: Gram, block: Region) -> list[Region]:
    """Regions of a super-block that are launched at once."""
    if _strategy(gram, block) == "cublas":
        return list(block.cut(gram.config.product_side))
    return [block]


def _strategy(gram: Gram, block: Region) -> str:
    if gram.strategy:
        return gram.strategy
    config, depth = gram.config, gram.layout.depth
    whole = configs.whole_tiles(config, block.tiles(config.rows, config.columns), depth)
    return configs.strategy(config, depth) if whole else "split"


def _gradients(gram: Gram, epilogue: Epilogue, block: Region) -> list[Tensor]:
    shape = (block.down, block.across)
    dtype = epilogue.narrow if gram.z.dtype.itemsize == 2 else torch.float32
    return [gram.z.new_empty(shape, dtype=dtype) for _ in range(epilogue.operands)]


def _run(gram: Gram, epilogue: Epilogue, region: Region, targets: _Targets) -> Tensor:
    """Make the tiles of a region and finish them; returns their parts of the sum."""
    config = gram.config.of_operands(epilogue.operands)
    finish = _finish(gram, epilogue, region, targets)
    if _strategy(gram, targets.origin) == "cublas":
        out = gram.renorm.new_empty(region.tiles(config.strip, config.strip))
        products = _products(gram, region, epilogue.operands)
        _finish_products(config, products, 1, out, 0, 0, finish)
        return out
    tiles = region.tiles(config.rows, config.columns)
    whole = _whole(gram, config, tiles)
    pieces = config.rows // config.strip * (config.columns // config.strip)
    out = gram.renorm.new_empty(whole + (tiles - whole) * pieces)
    make = _make(gram, config)
    if whole:
        fused_kernel[(whole,)](out=out, **finish, **make)
    if whole < tiles:
        products, parts = _split(gram, config, region, (whole, tiles), epilogue.operands, make)
        _finish_products(config, products, parts, out[whole:], whole, tiles - whole, finish)
    return out


def _whole(gram: Gram, config: Config, tiles: int) -> int:
    """How many tiles of a region are made whole; the others are split."""
    forced = {"fused": tiles, "split": 0}
    if gram.strategy in forced:
        return forced[gram.strategy]
    return configs.whole_tiles(config, tiles, gram.layout.depth)


def _make(gram: Gram, config: Config) -> dict[str, Any]:
    """What a kernel needs that makes tiles."""
    z_rows = z_columns = gram.z
    if config.described:
        z_rows = describe_tiles(gram.z, config.rows, config.step)
        z_columns = describe_tiles(gram.z, config.columns, config.step)
    return {
        "z_rows": z_rows,
        "z_columns": z_columns,
        "depth": gram.layout.depth,
        "ROWS": config.rows,
        "COLUMNS": config.columns,
        "STEP": config.step,
        "PRECISION": gram.precision,
        "DESCRIBED": config.described,
        "UPCAST": INTERPRETED and gram.z.dtype == torch.bfloat16,
        "num_warps": config.warps,
        "num_stages": config.stages,
    }


def _finish(gram: Gram, epilogue: Epilogue, region: Region, targets: _Targets) -> dict[str, Any]:
    """What a kernel needs that finishes tiles; tensors that it does not use are any."""
    down, across = region.top - targets.origin.top, region.left - targets.origin.left
    g = [gradient[down:, across:] for gradient in targets.gradients] or [gram.renorm]
    mirrors = [gradient[across:, down:] for gradient in targets.gradients] or [gram.renorm]
    return {
        "g": g[0],
        "g_mirror": mirrors[0],
        "g_other": g[-1],
        "g_other_mirror": mirrors[-1],
        "width": targets.origin.across,
        "of_rows": targets.of_rows,
        "of_columns": targets.of_columns,
        "renorm": gram.renorm,
        "lse": targets.lse,
        "row_weights": targets.weights,
        "p0": epilogue.p0,
        "p1": epilogue.p1,
        "top": region.top,
        "left": region.left,
        "region_down": region.down,
        "region_across": region.across,
        "rows": gram.layout.rows,
        "batch": gram.layout.batch,
        "ENTRY": epilogue.entry,
        "NEAR": epilogue.near,
        "NEAR_HOLDS": epilogue.near_holds,
        "KIND": epilogue.kind,
        "EXCLUDE": epilogue.exclude,
        "GRADIENT": bool(targets.gradients),
        "MIRROR": targets.origin.triangular,
        "SUMS": bool(targets.gradients) and gram.mean is not None,
        "TRIANGULAR": region.triangular,
        "STRIP": gram.config.strip,
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


def _split(
    gram: Gram, config: Config, region: Region, tiles: tuple[int, int], operands: int,
    make: dict[str, Any],
) -> tuple[Tensor, int]:  # fmt: skip
    """Products of some tiles of a region, in parts of the depth, and how many parts."""
    first, last = tiles
    count, depth = last - first, gram.layout.depth
    wanted = configs.parts(config, count, depth)
    part = cdiv(cdiv(depth, wanted), config.step) * config.step
    parts = cdiv(depth, part)
    products = gram.renorm.new_empty(operands, parts, count, config.rows, config.columns)
    split_kernel[(count, parts, operands)](
        products=products, part=part, first_tile=first, rows=gram.layout.rows, top=region.top,
        left=region.left, region_down=region.down, TRIANGULAR=region.triangular, **make,
    )  # fmt: skip
    return products, parts


def _finish_products(
    config: Config, products: Tensor, parts: int, out: Tensor, first_tile: int, tiles: int,
    finish: dict[str, Any],
) -> None:  # fmt: skip
    """Finish products that lie in memory: a matrix of a region, or if there are any ``tiles``."""
    finish_kernel[(len(out),)](
        products=products, parts=parts, first_tile=first_tile, tiles=tiles, out=out, **finish,
        SPLIT=tiles > 0, ROWS=config.rows, COLUMNS=config.columns, num_warps=config.finish_warps,
    )  # fmt: skip


def _statistics(gram: Gram, region: Region, numbers: int) -> tuple[Tensor, Tensor]:
    """Room for what strips, or halves, say of their rows and columns: numbers x strips x length."""
    strip = gram.config.strip
    of_rows = gram.renorm.new_zeros(numbers, region.across // (strip // 2), region.down)
    of_columns = gram.renorm.new_zeros(numbers, region.down // strip, region.across)
    return of_rows, of_columns


def _merge(found: Tensor, largest: Tensor, total: Tensor) -> None:
    _, parts, length = found.shape
    grid = (cdiv(length, MERGED_ROWS),)
    merge_kernel[grid](
        found, largest, total, length, parts, ROWS=MERGED_ROWS, PARTS=MERGED_PARTS
    )  # fmt: skip
