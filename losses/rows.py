"""Stacked rows of length one, and their positives, with the least traffic.

On the CPU the work goes over blocks of rows that stay in the cache: at D = 8192 the reference's
dozen passes over N x D tensors cost as much time as its products.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from lossbench.losses.autograd import first_order, needs_gradient
from lossbench.losses.devices import device_type

CACHED_ELEMENTS = 2**18
"""Elements of a block of rows on the CPU: 1 MB in fp32."""


def stacked_unit_rows(views: Sequence[Tensor], centre: bool) -> tuple[Tensor, Tensor]:
    """The rows of all views, scaled to length one.

    Args:
        views: V tensors, N x D.
        centre: subtract each row's mean first; rows that are constant up to rounding become zero.

    Returns:
        ``z``, VN x D, and ``scale``, VN x 1, by which each row was multiplied: 0 for a row without
        a direction, which is zero and has a zero gradient.
    """
    if needs_gradient(*views):
        return _UnitRows.apply(centre, *views)
    return _unit_rows(centre, views)


def positives(z: Tensor, scale: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Correlation of each sample with itself in another view.

    Args:
        z: VN x D rows of length one.
        scale: VN x 1, 0 for the rows that are zero.
        batch: N.

    Returns:
        ``rho`` and ``gap``, one entry for each pair of views and sample: the correlation, and
        ``1 - |rho| = |u -+ v|^2 / 2``, whose digits 1 minus a rounded rho would lose. Where a row
        is zero, rho is 0 and the gap 1.
    """
    if needs_gradient(z):
        return _Positives.apply(z, scale, batch)
    return _positives(z, scale, batch)


def _blocks(z: Tensor) -> list[slice]:
    rows, dim = z.shape
    step = max(1, CACHED_ELEMENTS // dim) if device_type(z) == "cpu" else rows
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _unit_rows(centre: bool, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    if len(views) * views[0].numel() <= CACHED_ELEMENTS:
        views = (torch.cat(tuple(views)),)  # fewer calls, which is what small batches pay for
    batch, dim = views[0].shape
    z = views[0].new_empty(len(views) * batch, dim)
    scale = z.new_empty(len(z), 1)
    for index, view in enumerate(views):
        for block in _blocks(view):
            rows = slice(index * batch + block.start, index * batch + block.stop)
            _scale_rows(view[block], centre, z[rows], scale[rows])
    return z, scale


def _scale_rows(x: Tensor, centre: bool, out: Tensor, scale: Tensor) -> None:
    zero_at: Tensor | float = 0.0
    rows = x
    if centre:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        zero_at = length.mul_(torch.finfo(x.dtype).eps)
        torch.sub(x, x.mean(dim=1, keepdim=True), out=out)
        # The mean of a constant row is rounded: a second pass leaves less than one ulp of it.
        rows = out.sub_(out.mean(dim=1, keepdim=True))
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    scale.copy_(norm.reciprocal().masked_fill_(norm <= zero_at, 0.0))
    torch.mul(rows, scale, out=out)


class _UnitRows(Function):
    """dL/dx = scale (g - mean(g) - z <z, g>), without the mean where rows are not centred."""

    @staticmethod
    def forward(ctx: Any, centre: bool, *views: Tensor) -> tuple[Tensor, Tensor]:
        z, scale = _unit_rows(centre, views)
        ctx.centre, ctx.views = centre, len(views)
        ctx.save_for_backward(z, scale)
        ctx.mark_non_differentiable(scale)
        return z, scale

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        z, scale = ctx.saved_tensors
        result = torch.empty_like(z)
        for rows in _blocks(z):
            g, unit, out = gradient[rows], z[rows], result[rows]
            along = (g * unit).sum(dim=1, keepdim=True)
            torch.addcmul(g, unit, along, value=-1, out=out)
            if ctx.centre:
                out.sub_(g.mean(dim=1, keepdim=True))
            out.mul_(scale[rows])
        return None, *result.chunk(ctx.views)


def _pairs(z: Tensor, batch: int) -> list[tuple[Tensor, Tensor]]:
    """The stacked views, two by two."""
    return list(itertools.combinations(z.split(batch), 2))


def _positives(z: Tensor, scale: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    pairs = _pairs(z, batch)
    rho, gap = (z.new_empty(len(pairs), batch) for _ in range(2))
    for index, (u, v) in enumerate(pairs):
        for block in _blocks(u):
            x, y = u[block], v[block]
            product = x * y
            rho[index, block] = product.sum(dim=1)
            sign = _sign(rho[index, block]).unsqueeze(1)
            difference = torch.addcmul(x, y, sign, value=-1, out=product)
            gap[index, block] = difference.square_().sum(dim=1).div_(2)
    zero = torch.stack([(u * v == 0).squeeze(1) for u, v in _pairs(scale, batch)])
    return rho, gap.masked_fill(zero, 1.0)  # in place, torch 2.11 compiles to a wrong gradient


def _sign(rho: Tensor) -> Tensor:
    return torch.where(rho < 0, -1.0, 1.0).to(rho.dtype)


class _Positives(Function):
    """d rho / du = v, d gap / du = u -+ v, and the same with u and v exchanged."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, scale: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        rho, gap = _positives(z, scale, batch)
        ctx.save_for_backward(z, rho)
        return rho, gap

    @staticmethod
    @first_order
    def backward(ctx: Any, of_rho: Tensor, of_gap: Tensor) -> tuple[Tensor, None, None]:
        z, rho = ctx.saved_tensors
        batch = rho.shape[1]
        sign = _sign(rho).unsqueeze(-1)
        slope, along = of_rho.unsqueeze(-1), of_gap.unsqueeze(-1)
        result = torch.zeros_like(z)
        pairs = zip(_pairs(z, batch), _pairs(result, batch), strict=True)
        for index, ((u, v), (du, dv)) in enumerate(pairs):
            for block in _blocks(u):
                difference = torch.addcmul(u[block], v[block], sign[index, block], value=-1)
                difference.mul_(along[index, block])
                du[block].add_(difference).addcmul_(v[block], slope[index, block])
                dv[block].addcmul_(difference, sign[index, block], value=-1)
                dv[block].addcmul_(u[block], slope[index, block])
        return result, None, None
