"""Sums over all pairs of different samples, by one symmetric Gram of the stacked views.

Two schedules. ``keep``: the gradient with respect to the Gram, G, is kept (M x M) and the backward
pass is one product G Z. Otherwise no more than a tile is held: the gradient of a sum is added up in
the same sweep, that of a logsumexp in a second one that computes the tiles again.

Work for V = 2 views and small tiles, in N^2 D: 2 forward and 4 backward, where autograd through
three N x N blocks needs 3 and 6.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from lossbench.losses.autograd import first_order, needs_gradient
from lossbench.losses.costs import Problem
from lossbench.losses.tiles import Tile, gram_entries, mirrored_entries, tiles

Entry = Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]
"""``entry(rho, needs_grad) -> (h, dh / drho)``, elementwise; it may overwrite ``rho``."""


def pair_sum(entry: Entry, z: Tensor, batch: int, side: int, keep: bool) -> Tensor:
    """Sum over all blocks u <= v and all i != j of ``entry(<u_i, v_j>)``.

    Args:
        entry: what is summed.
        z: VN x D, the stacked views.
        batch: N.
        side: side of a tile.
        keep: keep the M x M gradient instead of sweeping with a tile.
    """
    if needs_gradient(z):
        return _PairSum.apply(entry, z, batch, side, keep)
    return sum((_tile_sum(entry, z, tile)[0] for tile in tiles_of(z, batch, side)), z.new_zeros(()))


def pair_logsumexp(z: Tensor, scale: float, side: int, keep: bool) -> tuple[Tensor, Tensor]:
    """What a row of two stacked views has in common with the other samples, and with its own.

    Args:
        z: 2N x D, the stacked views.
        scale: multiplies the products.
        side: side of a tile.
        keep: keep the tiles of the Gram instead of computing them again.

    Returns:
        For each of the 2N rows, logsumexp of ``scale * <z_i, z_j>`` over the rows of the other
        samples, and ``scale * <z_i, z_j>`` with the same sample's other view.
    """
    if needs_gradient(z):
        return _Logsumexp.apply(z, scale, side, keep)
    return _logsumexp(z, scale, side, None)


def pair_cost(problem: Problem, side: int, keep: bool, recompute: bool = False) -> tuple[int, int]:
    """MACs of a forward and a backward pass over the tiles.

    Args:
        problem: shape of the batch.
        side: side of a tile.
        keep: the backward pass is one product with the kept gradient.
        recompute: the backward pass computes the tiles again.
    """
    shape = problem.batch, problem.views, side
    forward = gram_entries(*shape)
    backward = forward + mirrored_entries(*shape) + (forward if recompute else 0)
    if keep:
        backward = (problem.views * problem.batch) ** 2
    return forward * problem.dim, backward * problem.dim


def tiles_of(z: Tensor, batch: int, side: int) -> Iterable[Tile]:
    """Tiles of the Gram of stacked views of ``batch`` samples each."""
    return tiles(batch, len(z) // batch, side)


def add_products(out: Tensor, z: Tensor, gradient: Tensor, tile: Tile) -> None:
    """Add a tile's part of G Z to ``out``."""
    add_product(out[tile.rows], gradient, z[tile.columns])
    if tile.mirrored:
        add_product(out[tile.columns], gradient.T, z[tile.rows])


def add_product(out: Tensor, left: Tensor, right: Tensor) -> None:
    """``out += left @ right``. ``addmm_`` does the same, but ``FlopCounterMode`` is blind to it."""
    torch.addmm(out, left, right, out=out)


def _tile_sum(
    entry: Entry, z: Tensor, tile: Tile, needs_grad: bool = False
) -> tuple[Tensor, Tensor | None]:
    """A tile's share of the sum, and its tile of G."""
    h, slope = entry(z[tile.rows] @ z[tile.columns].T, needs_grad)
    if tile.same_samples:
        h.diagonal().zero_()
    twice = 2 if tile.same_view and tile.mirrored else 1
    if slope is not None:
        if tile.same_samples:
            slope.diagonal().zero_()
        if tile.same_view:  # rho_ij and rho_ji are one product
            slope.mul_(2)
    return h.sum() * twice, slope


class _PairSum(Function):
    @staticmethod
    def forward(ctx: Any, entry: Entry, z: Tensor, batch: int, side: int, keep: bool) -> Tensor:
        total = z.new_zeros(())
        kept = z.new_empty(len(z), len(z)) if keep else torch.zeros_like(z)
        for tile in tiles_of(z, batch, side):
            part, slope = _tile_sum(entry, z, tile, needs_grad=True)
            total = total + part  # in place, torch 2.11 compiles to a gradient of zero
            assert slope is not None
            if keep:
                _put(kept, slope, tile)
            else:
                add_products(kept, z, slope, tile)
        ctx.keep = keep
        ctx.save_for_backward(*((kept, z) if keep else (kept,)))
        return total

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept, *z = ctx.saved_tensors
        result = (kept @ z[0]).mul_(gradient) if ctx.keep else kept * gradient
        return None, result, None, None, None


def _put(matrix: Tensor, values: Tensor, tile: Tile) -> None:
    """Write a tile and its mirror image."""
    matrix[tile.rows, tile.columns] = values
    if tile.mirrored:
        matrix[tile.columns, tile.rows] = values.T


def symmetric_gram(z: Tensor, batch: int, side: int) -> Tensor:
    """``z @ z.T`` from the tiles of its upper triangle."""
    gram = z.new_empty(len(z), len(z))
    for tile in tiles_of(z, batch, side):
        _put(gram, z[tile.rows] @ z[tile.columns].T, tile)
    return gram


def _scores(z: Tensor, scale: float, tile: Tile) -> tuple[Tensor, Tensor | None]:
    """A tile of the scaled Gram without the same samples, and those where it had them."""
    rows, columns = z[tile.rows], z[tile.columns].T
    scores = torch.addmm(z.new_empty(1), rows, columns, beta=0, alpha=scale)
    if not tile.same_samples:
        return scores, None
    own = scores.diagonal()
    positive = own.clone()
    own.fill_(float("-inf"))
    return scores, positive


def _logsumexp(
    z: Tensor, scale: float, side: int, kept: list[Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Both results, one sweep over the tiles, which are added to ``kept``."""
    negatives = z.new_full((len(z),), float("-inf"))
    positive = torch.empty_like(negatives)
    for tile in tiles_of(z, len(z) // 2, side):
        scores, own = _scores(z, scale, tile)
        _merge(negatives[tile.rows], _reduce(scores, dim=1))
        if tile.mirrored:
            _merge(negatives[tile.columns], _reduce(scores, dim=0))
            if own is not None:
                positive[tile.rows] = own
                positive[tile.columns] = own
        if kept is not None:
            kept.append(scores)
    return negatives, positive


def _reduce(scores: Tensor, dim: int) -> Tensor:
    """logsumexp, without the passes in which torch's looks for infinities."""
    largest = scores.amax(dim, keepdim=True).clamp_min_(torch.finfo(scores.dtype).min)
    return (scores - largest).exp_().sum(dim).log_().add_(largest.squeeze(dim))


def _merge(total: Tensor, part: Tensor) -> None:
    torch.logaddexp(total, part, out=total)


class _Logsumexp(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, scale: float, side: int, keep: bool) -> tuple[Tensor, Tensor]:
        kept: list[Tensor] = []
        negatives, positive = _logsumexp(z, scale, side, kept if keep else None)
        ctx.scale, ctx.side = scale, side
        ctx.save_for_backward(z, negatives, *kept)
        return negatives, positive

    @staticmethod
    @first_order
    def backward(ctx: Any, of_negatives: Tensor, of_positive: Tensor) -> tuple[Tensor | None, ...]:
        z, negatives, *kept = ctx.saved_tensors
        weight, own = ctx.scale * of_negatives, ctx.scale * of_positive
        result = z.new_empty(len(z), len(z)) if kept else torch.zeros_like(z)
        for index, tile in enumerate(tiles_of(z, len(z) // 2, ctx.side)):
            scores = kept[index] if kept else _scores(z, ctx.scale, tile)[0]
            slope = _slope(scores, negatives, weight, tile)
            if tile.same_samples and tile.mirrored:
                slope.diagonal().copy_(own[tile.rows] + own[tile.columns])
            if kept:
                _put(result, slope, tile)
            else:
                add_products(result, z, slope, tile)
        return (result @ z if kept else result), None, None, None


def _slope(scores: Tensor, negatives: Tensor, weight: Tensor, tile: Tile) -> Tensor:
    """A tile of the symmetric G: the pair counts for its row, and for its column."""
    of_row = (scores - negatives[tile.rows, None]).exp_().mul_(weight[tile.rows, None])
    of_column = (scores - negatives[tile.columns]).exp_().mul_(weight[tile.columns])
    return of_row.add_(of_column)
