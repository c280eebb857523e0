"""Squared Frobenius norm of a feature-by-feature product, without the D x D matrix.

    ||A^T B||_F^2 = <A A^T, B B^T>_F

so the sum of all squared feature correlations costs N^2 D instead of N D^2. The diagonal comes with
it, for N D. The caller subtracts its squares, which may cancel: the products are computed in full
precision, never in TF32.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from lossbench.losses.autograd import first_order, needs_gradient
from lossbench.losses.costs import Problem
from lossbench.losses.devices import device_type
from lossbench.losses.pairs import add_product, add_products, symmetric_gram, tiles_of
from lossbench.losses.precision import fp32_products
from lossbench.losses.tiles import gram_entries, gram_side, mirrored_entries

TILE_ARRAYS = 3
"""Tile-sized arrays alive at once in a sweep."""


def gram_norm(a: Tensor, b: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``||a.T @ b||_F^2`` through two kept N x N Grams; through one where ``b`` is left out.

    Args:
        a: N x D.
        b: N x D, default ``a``.

    Returns:
        The norm, and the diagonal of ``a.T @ b``.
    """
    operands = (a,) if b is None else (a, b)
    if needs_gradient(*operands):
        return _GramNorm.apply(*operands)
    return _inner(_grams(operands)), _diagonal(operands)


def swept_norm(side: int, a: Tensor, b: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The same, tile by tile, with the gradient of the norm added up in the same sweep.

    The tiles are of the N x N Grams or of the D x D product, whichever has less work.

    Args:
        side: side of a tile.
        a: N x D.
        b: N x D, default ``a``.

    Returns:
        The norm, and the diagonal of ``a.T @ b``.
    """
    operands = (a,) if b is None else (a, b)
    if needs_gradient(*operands):
        return _SweptNorm.apply(side, *operands)
    return _sweep(side, operands, None), _diagonal(operands)


def gram_norm_macs(problem: Problem, operands: int) -> tuple[int, int]:
    """Forward and backward MACs of ``gram_norm``."""
    entries = gram_entries(problem.batch, 1, gram_side(problem.batch, problem.device))
    return operands * entries * problem.dim, operands * problem.batch**2 * problem.dim


def swept_norm_macs(problem: Problem, operands: int, side: int) -> tuple[int, int]:
    """Forward MACs of ``swept_norm``, and those of the gradient."""
    if problem.batch <= problem.dim:
        entries, mirrored = (count(problem.batch, 1, side) for count in _COUNTS)
        return operands * entries * problem.dim, operands * (entries + mirrored) * problem.dim
    if operands == 2:
        return problem.batch * problem.dim**2, 2 * problem.batch * problem.dim**2
    entries, mirrored = (count(problem.dim, 1, side) for count in _COUNTS)
    return entries * problem.batch, (entries + mirrored) * problem.batch


_COUNTS = (gram_entries, mirrored_entries)


def _grams(operands: tuple[Tensor, ...]) -> list[Tensor]:
    batch = len(operands[0])
    side = gram_side(batch, device_type(operands[0]))
    with fp32_products("ieee"):
        return [symmetric_gram(z, batch, side) for z in operands]


def _inner(grams: list[Tensor]) -> Tensor:
    return (grams[0] * grams[-1]).sum()


def _diagonal(operands: tuple[Tensor, ...]) -> Tensor:
    return (operands[0] * operands[-1]).sum(dim=0)


def _add_of_diagonal(
    gradients: Sequence[Tensor], operands: Sequence[Tensor], of_diagonal: Tensor
) -> tuple[Tensor, ...]:
    """Add d/da = b diag(slope), and twice that where b is a."""
    slope = of_diagonal * (2 if len(operands) == 1 else 1)
    for gradient, other in zip(gradients, reversed(operands), strict=True):
        gradient.addcmul_(other, slope)
    return tuple(gradients)


class _GramNorm(Function):
    """d/da = 2 (b b^T) a, and twice that where b is a."""

    @staticmethod
    def forward(ctx: Any, *operands: Tensor) -> tuple[Tensor, Tensor]:
        grams = _grams(operands)
        ctx.save_for_backward(*operands, *grams)
        return _inner(grams), _diagonal(operands)

    @staticmethod
    @first_order
    def backward(ctx: Any, of_norm: Tensor, of_diagonal: Tensor) -> tuple[Tensor, ...]:
        saved = ctx.saved_tensors  # read once: under checkpointing each read recomputes
        count = len(saved) // 2
        operands, grams = saved[:count], saved[count:]
        scale = of_norm * (2 if count == 2 else 4)
        others = reversed(grams)
        with fp32_products("ieee"):
            gradients = [(k * scale) @ z for k, z in zip(others, operands, strict=True)]
        return _add_of_diagonal(gradients, operands, of_diagonal)


class _SweptNorm(Function):
    @staticmethod
    def forward(ctx: Any, side: int, *operands: Tensor) -> tuple[Tensor, Tensor]:
        gradients = tuple(torch.zeros_like(z) for z in operands)
        norm = _sweep(side, operands, gradients)
        ctx.save_for_backward(*operands, *gradients)
        return norm, _diagonal(operands)

    @staticmethod
    @first_order
    def backward(ctx: Any, of_norm: Tensor, of_diagonal: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        operands, kept = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        gradients = [gradient * of_norm for gradient in kept]
        return None, *_add_of_diagonal(gradients, operands, of_diagonal)


def _sweep(side: int, operands: tuple[Tensor, ...], out: tuple[Tensor, ...] | None) -> Tensor:
    """The norm; its gradients are added to ``out``."""
    batch, dim = operands[0].shape
    with fp32_products("ieee"):
        if batch <= dim:
            return _sweep_samples(side, operands, out)
        if len(operands) == 1:  # features take the place of samples
            turned = (operands[0].T,)
            return _sweep_samples(side, turned, out and (out[0].T,))
        return _sweep_features(side, operands[0], operands[1], out)


def _sweep_samples(
    side: int, operands: tuple[Tensor, ...], out: tuple[Tensor, ...] | None
) -> Tensor:
    total = operands[0].new_zeros(())
    factor = 2 if len(operands) == 2 else 4
    for tile in tiles_of(operands[0], len(operands[0]), side):
        products = [z[tile.rows] @ z[tile.columns].T for z in operands]
        total = total + _inner(products) * (2 if tile.mirrored else 1)
        for z, slope, gradient in zip(operands, reversed(products), out or (), strict=False):
            add_products(gradient, z, slope.mul_(factor), tile)
    return total


def _sweep_features(side: int, a: Tensor, b: Tensor, out: tuple[Tensor, ...] | None) -> Tensor:
    total = a.new_zeros(())
    parts = [slice(start, start + side) for start in range(0, a.shape[1], side)]
    for i, j in itertools.product(parts, parts):
        product = a[:, i].T @ b[:, j]
        total = total + product.square().sum()
        if out is not None:
            product.mul_(2)
            add_product(out[0][:, i], b[:, j], product.T)
            add_product(out[1][:, j], a[:, i], product)
    return total
