"""Losses that are a sum over pairs of normalised rows: SMI, spectral contrastive.

One custom op makes rows, sums and, if a gradient is needed, G; another takes the gradient back.
Where G is too large to be kept, the first op computes the gradient in the sweep that sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lossbench.kernels.engine import multiply, sum_pairs
from lossbench.kernels.gram import Epilogue, Gram
from lossbench.kernels.ops import on_device, register_macs, require_support
from lossbench.kernels.plan import layout
from lossbench.kernels.rows import (
    Normalisation,
    Rows,
    empty_rows,
    gradients,
    make_rows,
    mean_rows,
    project,
)
from lossbench.losses.autograd import first_order, needs_gradient


@dataclass(frozen=True)
class PairLoss:
    """What distinguishes a loss of this family.

    Attributes:
        entry: kernel function ``(rho, p0, p1) -> (h, dh/drho)`` of two different samples. The slope
            at 0 must be 0: what is left out, such as a sample with itself, has rho 0.
        positive: kernel function ``(rho, gap, p0, p1) -> (h, dh/drho, dh/dgap)`` of a positive
            pair, gap = 1 - |rho|.
        centre: subtract each row's mean.
        both: pairs of both views only, not those of one view.
        near: a cheaper ``entry`` where correlations are near 0, as ``Epilogue`` has it.
        near_holds: where it holds.
    """

    entry: Any
    positive: Any
    centre: bool = False
    both: bool = False
    near: Any = None
    near_holds: Any = None

    def epilogue(self, p0: float, p1: float) -> Epilogue:
        """What the engine does with each entry."""
        return Epilogue(entry=self.entry, near=self.near, near_holds=self.near_holds, p0=p0, p1=p1)


LOSSES: dict[str, PairLoss] = {}
"""By the name that the custom ops know them by."""


def pair_terms(
    name: str, z_a: Tensor, z_b: Tensor, p0: float, p1: float, radius: float,
    strategy: str | None, precision: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Sum of a loss's positives, and of its other pairs.

    Args:
        name: one of ``LOSSES``.
        z_a: N x D.
        z_b: N x D.
        p0: first parameter of the loss's kernel functions.
        p1: second parameter.
        radius: rows that are longer are shortened to it; 0: every row gets length one.
        strategy: one of ``configs.STRATEGIES``; None for the fastest by the table.
        precision: one of ``configs.PRECISIONS``, of fp32 operands.
    """
    require_support(z_a, strategy, precision)
    needs_grad = needs_gradient(z_a, z_b)
    parameters = (p0, p1, radius, needs_grad, strategy or "", precision)
    sums = pair_sum(z_a.contiguous(), z_b.contiguous(), name, *parameters)[0]
    return sums[0], sums[1]


@torch.library.custom_op("lossbench::pair_sum", mutates_args=())
def pair_sum(
    z_a: Tensor, z_b: Tensor, name: str, p0: float, p1: float, radius: float, needs_grad: bool,
    strategy: str, precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Both sums, and what their gradients need.

    That is the rows' three tensors, their mean, G and the sums of its rows. Where G is not kept,
    the gradient of the second sum takes the place of the rows, and the last three are empty.
    """
    loss = LOSSES[name]
    shape = layout(z_a.shape, both=loss.both)
    how = Normalisation(loss.positive, p0, p1, loss.centre, radius)
    with on_device(z_a):
        rows = make_rows(z_a, z_b, how, shape, precision)
        mean = mean_rows(z_a, z_b, rows, shape) if needs_grad else None
        gram = Gram(rows.z, rows.renorm, shape, strategy, precision, mean)
        total, kept, sums = sum_pairs(gram, loss.epilogue(p0, p1), needs_grad)
        result = torch.stack([rows.pairs[0].sum(), total])
        if needs_grad and shape.keeps:
            shared = rows.facts.new_empty(0) if mean is None else mean
            return result, rows.z, rows.facts, rows.pairs, shared, kept[0], sums
        z = project(z_a, z_b, kept[0], rows, how, shape) if needs_grad else rows.z
        first, second, third = (rows.facts.new_empty(0) for _ in range(3))
        return result, z, rows.facts, rows.pairs, first, second, third


@pair_sum.register_fake
def _(
    z_a: Tensor, z_b: Tensor, name: str, p0: float, p1: float, radius: float, needs_grad: bool,
    strategy: str, precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    shape = layout(z_a.shape, both=LOSSES[name].both)
    rows = empty_rows(z_a, shape)
    narrow = z_a.dtype.itemsize == 2
    facts = rows.facts
    z, mean, g, sums = rows.z, facts.new_empty(0), facts.new_empty(0), facts.new_empty(0)
    if needs_grad and shape.keeps:
        whole = shape.gram
        dtype = torch.bfloat16 if narrow else torch.float32
        g = z_a.new_empty(whole.down, whole.across, dtype=dtype)
        mean = facts.new_empty(2, shape.depth) if narrow else mean
        sums = facts.new_empty(2 if narrow else 0, len(z))
    elif needs_grad and narrow:
        z = z.view(torch.bfloat16)
    return facts.new_empty(2), z, facts, rows.pairs, mean, g, sums


@torch.library.custom_op("lossbench::pair_sum_backward", mutates_args=())
def pair_sum_backward(
    z_a: Tensor, z_b: Tensor, z: Tensor, facts: Tensor, pairs: Tensor, mean: Tensor, g: Tensor,
    sums: Tensor, of_sums: Tensor, name: str, precision: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of both views."""
    loss = LOSSES[name]
    shape = layout(z_a.shape, both=loss.both)
    rows = Rows(z, facts, pairs)
    with on_device(z_a):
        source = z
        if shape.keeps:
            shared = mean if mean.numel() else None
            gram = Gram(z, rows.renorm, shape, precision=precision, mean=shared)
            source = multiply(gram, [g], sums)
        weights = of_sums.float().contiguous()
        return gradients(z_a, z_b, source, rows, weights, loss.centre, shape, not shape.keeps)


@pair_sum_backward.register_fake
def _(z_a: Tensor, z_b: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(z_a), torch.empty_like(z_b)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z_a, z_b, ctx.name, *_, ctx.precision = inputs
    ctx.set_materialize_grads(False)  # of G they would be as large
    ctx.save_for_backward(z_a, z_b, *output[1:])


@first_order
def _backward(ctx: Any, of_sums: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    found = pair_sum_backward(*ctx.saved_tensors, of_sums, ctx.name, ctx.precision)
    return *found, None, None, None, None, None, None, None


pair_sum.register_autograd(_backward, setup_context=_setup)


def _macs(shape: Sequence[int], name: str, needs_grad: bool) -> int:
    found = layout(shape, both=LOSSES[name].both)
    times = 3 if needs_grad and not found.keeps else 1  # the gradient's product with the rows
    return times * found.macs


def _backward_macs(shape: Sequence[int], name: str) -> int:
    found = layout(shape, both=LOSSES[name].both)
    return 2 * found.macs if found.keeps else 0


register_macs(pair_sum, _macs, constants=(2, 6))
register_macs(pair_sum_backward, _backward_macs, constants=(9,))
