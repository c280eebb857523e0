"""Row blocks of a Gram that is spread over ranks: each rank's own N rows against all W N samples.

The views are gathered once. A Gram is symmetric, so that the gradient for a rank's own rows needs
its own row block alone: nothing N x D is sent for the backward pass. Of work, in N W N D for two
views: SMI's and NT-Xent's 4 forward and 4 backward, the norm of Barlow Twins 2 and 2.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lossbench.losses.autograd import needs_gradient
from lossbench.losses.collectives import World
from lossbench.losses.costs import Cost, Exchange, Problem, all_gather_bytes, all_reduce_bytes
from lossbench.losses.pairs import Entry, add_product
from lossbench.losses.precision import fp32_products, own_precision


def row_block_sum(
    world: World, entry: Entry, own: Tensor, blocks: Iterable[tuple[int, int]]
) -> Tensor:
    """This rank's share of the sum of ``entry(<u_i, v_j>)`` over all i != j of the given blocks.

    Args:
        world: the ranks.
        entry: what is summed, see ``losses.pairs``.
        own: V x N x D, the rank's views.
        blocks: pairs of views u <= v.

    Returns:
        A scalar, to be added up by ``World.sum``. No more than one N x WN block is held, the
        gradient is computed along with it.
    """
    everything = world.gather(own)
    gradient = torch.zeros_like(own) if needs_gradient(own) else None
    with torch.no_grad():
        parts = []
        for u, v in blocks:
            parts.append(_block(world, entry, own, everything, (u, v), gradient))
            if gradient is not None and u != v:  # the same pairs, seen from the rows of v
                _block(world, entry, own, everything, (v, u), gradient)
        value = torch.stack(parts).sum()
    return value if gradient is None else _Known.apply(value, gradient, own)


def _block(
    world: World,
    entry: Entry,
    own: Tensor,
    everything: Tensor,
    views: tuple[int, int],
    gradient: Tensor | None,
) -> Tensor:
    """Sum of one block; its share of the gradient is added to ``gradient``."""
    u, v = views
    values, slope = entry(own[u] @ everything[v].T, gradient is not None)
    _same_samples(world, values).zero_()
    if slope is not None and gradient is not None:
        _same_samples(world, slope).zero_()
        if u == v:  # rho_ij and rho_ji are one product
            slope.mul_(2)
        add_product(gradient[u], slope, everything[v])
    return values.sum()


def _same_samples(world: World, block: Tensor) -> Tensor:
    """Entries of an N x WN block that hold a sample with itself, or with its other view."""
    return block.diagonal(world.rank * len(block))


def row_block_norm(world: World, *own: Tensor) -> Tensor:
    """This rank's share of ``||A^T B||_F^2 = <A A^T, B B^T>_F`` of the samples of all ranks.

    Args:
        world: the ranks.
        *own: N x D of A and of B; one for both where B is A.

    Returns:
        A scalar, to be added up by ``World.sum``; its gradient is computed along with it. Products
        are in full precision, because what is subtracted from the norm may cancel.
    """
    stacked, with_gradient = torch.stack(own), needs_gradient(*own)
    everything = world.gather(stacked)
    with torch.no_grad(), fp32_products("ieee"):
        blocks = [rows @ columns.T for rows, columns in zip(own, everything, strict=True)]
        value = (blocks[0] * blocks[-1]).sum()
        if not with_gradient:
            return value
        factor = 2 if len(own) == 2 else 4
        pairs = zip(reversed(blocks), everything, strict=True)
        gradient = torch.stack([block.mul_(factor) @ z for block, z in pairs])
    return _Known.apply(value, gradient, stacked)


class _Known(Function):
    """A value whose gradient has been computed along with it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradient: Tensor, own: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_value: Tensor) -> tuple[None, None, Tensor]:
        (gradient,) = ctx.saved_tensors
        return None, None, gradient * of_value


def row_block_logsumexp(world: World, own: Tensor, scale: float) -> Tensor:
    """For each own row, logsumexp of ``scale * <z_i, z_j>`` over the rows of all other samples.

    Args:
        world: the ranks.
        own: 2 x N x D, the rank's views.
        scale: multiplies the products.

    Returns:
        2N values, first of one view's rows, then of the other's. The 2N x 2WN products are kept.
    """
    return _Logsumexp.apply(world, own, scale)


class _Logsumexp(Function):
    @staticmethod
    def forward(ctx: Any, world: World, own: Tensor, scale: float) -> Tensor:
        views, batch, _ = own.shape
        everything = world.gather(own).flatten(0, 1)
        scores = (own.flatten(0, 1) @ everything.T).mul_(scale)
        for rows in scores.split(batch):
            for block in rows.chunk(views, dim=1):
                _same_samples(world, block).fill_(float("-inf"))
        negatives = scores.logsumexp(dim=1)
        ctx.world, ctx.views, ctx.scale = world, views, scale
        ctx.save_for_backward(everything, scores, negatives)
        return negatives

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_negatives: Tensor) -> tuple[None, Tensor, None]:
        """The pair counts for its row, and for its column, which may be another rank's row."""
        everything, scores, negatives = ctx.saved_tensors
        with own_precision(scores.device.type):
            weight = ctx.scale * of_negatives
            rows = torch.cat([negatives, weight]).view(2 * ctx.views, -1)
            of_all = ctx.world.gather(rows).view(2, -1)
            slope = (scores - negatives[:, None]).exp_().mul_(weight[:, None])
            slope.add_((scores - of_all[0]).exp_().mul_(of_all[1]))
            return None, (slope @ everything).unflatten(0, (ctx.views, -1)), None


def row_block_bytes(job: Exchange, summed: int) -> int:
    """Bytes each rank communicates: the views, for the forward pass alone, and sums over ranks.

    Args:
        job: the job.
        summed: elements that are added up over the ranks.
    """
    return all_gather_bytes(replace(job, pass_="forward")) + all_reduce_bytes(job, summed)


def row_block_cost(
    problem: Problem,
    world: int,
    products: tuple[int, int],
    entries: Callable[[Problem], int],
    *,
    gradient_in_forward: bool = True,
    at_once: int = 0,
    own: int = 2,
    blocks: int = 4,
) -> Cost:
    """Counts of a rank's own rows, N of W N.

    Args:
        problem: the rank's own samples.
        world: number of ranks, W.
        products: of N x W N x D, in the forward pass and for the gradient.
        entries: pairs that a loss of the global batch pushes apart, of which each rank has a share.
        gradient_in_forward: whether the forward pass computes the gradient.
        at_once: views that are gathered together; default: all.
        own: arrays of the size of the rank's own part of these that are held.
        blocks: arrays of the size of a row block that are held.
    """
    everyone = replace(problem, batch=world * problem.batch)
    product = problem.batch * everyone.batch * problem.dim
    views = at_once or problem.views
    gathered = views * everyone.batch * problem.dim
    copies = 3 if views > 1 else 1  # views of several ranks are put in order
    block = blocks * problem.batch * everyone.batch
    peak = own * gathered // world + max(copies * gathered, gathered + block)
    forward, backward = (count * product for count in products)
    share = entries(everyone) // world
    return Cost(forward, backward, share, peak, gradient_in_forward=gradient_in_forward)
