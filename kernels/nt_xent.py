"""NT-Xent by fused kernels: a sweep for each row's logsumexp, and one for the gradient."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lossbench.kernels.cost import gram_cost
from lossbench.kernels.engine import logsumexp, softmax_gradient
from lossbench.kernels.gram import Epilogue, Gram
from lossbench.kernels.maths import no_part
from lossbench.kernels.ops import on_device, register_macs, require_support
from lossbench.kernels.plan import Layout, layout
from lossbench.kernels.rows import Normalisation, Rows, empty_rows, gradients, make_rows, mean_rows
from lossbench.losses import Cost, Problem, cost_model, implementation
from lossbench.losses.autograd import first_order
from lossbench.losses.nt_xent import NTXent


@implementation("nt_xent", "triton", fused=True)
def fused(
    hp: NTXent, z_a: Tensor, z_b: Tensor, *, strategy: str | None = None, precision: str = "ieee"
) -> dict[str, Tensor]:
    """Tiles of the stacked Gram that never leave the chip, or only their gradient does."""
    require_support(z_a, strategy, precision)
    views = z_a.contiguous(), z_b.contiguous()
    anchors = nt_xent(*views, 1 / hp.temperature, strategy or "", precision)[0]
    return {"anchors_a": anchors[0], "anchors_b": anchors[1]}


@cost_model("nt_xent", "triton")
def cost(problem: Problem, strategy: str | None = None, precision: str = "ieee") -> Cost:
    """Each pair once, and once more for the gradient of either of its rows."""
    return gram_cost("nt_xent", problem, [layout((problem.batch, problem.dim))], recompute=True)


@torch.library.custom_op("lossbench::nt_xent", mutates_args=())
def nt_xent(
    z_a: Tensor, z_b: Tensor, scale: float, strategy: str, precision: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Both parts of the loss, and what the gradient needs: the rows and their logsumexps."""
    shape = layout(z_a.shape)
    with on_device(z_a):
        rows = make_rows(z_a, z_b, Normalisation(no_part), shape, precision)
        gram = Gram(rows.z, rows.renorm, shape, strategy, precision)
        lse = logsumexp(gram, Epilogue("logsumexp", p0=scale))
        anchors = torch.logaddexp(_excess(lse, rows, scale, shape), lse.new_zeros(()))
        return anchors.mean(dim=1) / 2, rows.z, rows.facts, rows.pairs, lse


@nt_xent.register_fake
def _(
    z_a: Tensor, z_b: Tensor, scale: float, strategy: str, precision: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows = empty_rows(z_a, layout(z_a.shape))
    return rows.facts.new_empty(2), rows.z, rows.facts, rows.pairs, torch.empty_like(rows.renorm)


def _excess(lse: Tensor, rows: Rows, scale: float, shape: Layout) -> Tensor:
    """Each anchor's logsumexp over the negatives less its positive's score, 2 x N.

    Cross-entropy is softplus of it: no digit cancels where the loss is near zero.
    """
    return lse.view(2, shape.rows)[:, : shape.batch] - scale * rows.rho


@torch.library.custom_op("lossbench::nt_xent_backward", mutates_args=())
def nt_xent_backward(
    z_a: Tensor, z_b: Tensor, z: Tensor, facts: Tensor, pairs: Tensor, lse: Tensor,
    of_anchors: Tensor, scale: float, strategy: str, precision: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of both views."""
    shape = layout(z_a.shape)
    rows = Rows(z, facts, pairs.clone())
    with on_device(z_a):
        slope = torch.sigmoid(_excess(lse, rows, scale, shape)) * of_anchors[:, None]
        slope *= scale / (2 * shape.batch)
        rows.slope_rho.copy_(-slope.sum(dim=0))
        weights = torch.zeros_like(lse)
        weights.view(2, shape.rows)[:, : shape.batch] = slope
        mean = mean_rows(z_a, z_b, rows, shape)
        gram = Gram(z, rows.renorm, shape, strategy, precision, mean)
        product = softmax_gradient(gram, Epilogue("softmax", p0=scale), lse, weights)
        ones = lse.new_ones(2)
        return gradients(z_a, z_b, product, rows, ones, False, shape, projected=False)


@nt_xent_backward.register_fake
def _(z_a: Tensor, z_b: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(z_a), torch.empty_like(z_b)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z_a, z_b, *ctx.settings = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(z_a, z_b, *output[1:])


@first_order
def _backward(ctx: Any, of_anchors: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    found = nt_xent_backward(*ctx.saved_tensors, of_anchors, *ctx.settings)
    return *found, None, None, None


nt_xent.register_autograd(_backward, setup_context=_setup)


def _macs(shape: Sequence[int]) -> int:
    return layout(shape).macs


def _backward_macs(shape: Sequence[int]) -> int:
    return 2 * _macs(shape)


register_macs(nt_xent, _macs)
register_macs(nt_xent_backward, _backward_macs)
