"""Squared Frobenius norm of a product of features, ``A^T B``, by sweeps over the smaller form.

``||A^T B||^2 = <A A^T, B B^T>``: two N x N Grams where N <= D, or else the D x D product itself.
The diagonal comes with it, in fp32. The caller subtracts its squares from the norm; for what is
subtracted to cancel, the norm is given the exact diagonal instead of that of the rounded operands.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lossbench.kernels.engine import multiply, sum_pairs
from lossbench.kernels.gram import Epilogue, Gram
from lossbench.kernels.maths import square
from lossbench.kernels.ops import on_device, register_macs
from lossbench.kernels.plan import Layout, layout
from lossbench.losses.autograd import first_order, needs_gradient


def fused_norm(
    narrow: torch.dtype, strategy: str | None, a: Tensor, b: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``||a.T @ b||_F^2``, and the diagonal of ``a.T @ b``; products of fp32 are never TF32.

    Args:
        narrow: dtype of the operands of the products; fp16 if no entry is large.
        strategy: one of ``configs.STRATEGIES``; None for the fastest by the table.
        a: N x D, fp32.
        b: N x D, fp32; default ``a``.
    """
    operands = [a.contiguous()] if b is None else [a.contiguous(), b.contiguous()]
    name = str(narrow).removeprefix("torch.")
    norm, diagonal, *_ = feature_norm(operands, name, needs_gradient(*operands), strategy or "")
    return norm, diagonal


def layouts(shape: Sequence[int], operands: int) -> list[Layout]:
    """Of the Grams that are swept."""
    batch, dim = shape
    if batch <= dim:
        return [layout(shape, views=1)] * operands
    return [layout((dim, batch), views=operands, both=operands == 2)]


def _is_cross(shape: Sequence[int], operands: int) -> bool:
    return operands == 2 and shape[0] <= shape[1]


def _scale(narrow: torch.dtype, gram: Layout) -> float:
    """What G is multiplied by, so that its entries, at most 2 rows x depth, have fp16's range."""
    return min(1.0, 2**14 / gram.rows) / gram.depth if narrow == torch.float16 else 1.0


def _epilogue(shape: Sequence[int], operands: int, narrow: torch.dtype, gram: Layout) -> Epilogue:
    """The squares of the Gram's entries, or their products with those of the other Gram."""
    scale = _scale(narrow, gram)
    if _is_cross(shape, operands):
        return Epilogue(kind="cross", exclude=False, p0=scale, narrow=narrow)
    return Epilogue(entry=square, exclude=False, p0=scale, narrow=narrow)


def _stack(operands: list[Tensor], narrow: torch.dtype, shape: Layout) -> Tensor:
    """The operands, or their transposes, rounded and padded."""
    batch, dim = operands[0].shape
    z = operands[0].new_zeros(len(operands) * shape.rows, shape.depth, dtype=narrow)
    for out, operand in zip(z.split(shape.rows), operands, strict=True):
        turned = operand if batch <= dim else operand.T
        out[: turned.shape[0], : turned.shape[1]] = turned
    return z


def _unstack(z: Tensor, operands: int, shape: Sequence[int]) -> list[Tensor]:
    batch, dim = shape
    parts = z.view(operands, -1, z.shape[1])
    if batch <= dim:
        return [part[:batch, :dim] for part in parts]
    return [part[:dim, :batch].T for part in parts]


@torch.library.custom_op("lossbench::feature_norm", mutates_args=())
def feature_norm(
    operands: list[Tensor], narrow: str, needs_grad: bool, strategy: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Norm and diagonal, and what the gradient needs.

    That is the rounded operands, G or ``G z``, and what rounding took from the diagonal.
    """
    shape = operands[0].shape
    grams = layouts(shape, len(operands))
    with on_device(operands[0]):
        z = _stack(operands, getattr(torch, narrow), grams[0])
        ones = z.new_ones(len(z), dtype=torch.float32)
        gram = Gram(z, ones, grams[0], strategy)
        epilogue = _epilogue(shape, len(operands), z.dtype, grams[0])
        norm, kept, _ = sum_pairs(gram, epilogue, needs_grad)
        rounded = _unstack(z, len(operands), shape)
        diagonal = (operands[0] * operands[-1]).sum(dim=0)
        of_rounded = (rounded[0].float() * rounded[-1].float()).sum(dim=0)
        # the difference of the squares, summed, without what is common to both
        lost = diagonal - of_rounded
        norm = norm + (lost * (diagonal + of_rounded)).sum()
        return norm, diagonal, z, torch.stack(kept) if kept else ones.new_empty(0), lost


@feature_norm.register_fake
def _(
    operands: list[Tensor], narrow: str, needs_grad: bool, strategy: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    shape, count = operands[0].shape, len(operands)
    gram = layouts(shape, count)[0]
    dtype = getattr(torch, narrow)
    z = operands[0].new_empty(count * gram.rows, gram.depth, dtype=dtype)
    kept = operands[0].new_empty(0, dtype=torch.float32)
    if needs_grad and gram.keeps:
        grams = 2 if _is_cross(shape, count) else 1
        kept = z.new_empty(grams, gram.gram.down, gram.gram.across)
    elif needs_grad:
        kept = z.new_empty(1, *z.shape, dtype=torch.float32)
    fp32 = operands[0].new_empty(shape[1], dtype=torch.float32)
    return fp32.new_empty(()), fp32, z, kept, torch.empty_like(fp32)


@torch.library.custom_op("lossbench::feature_norm_backward", mutates_args=())
def feature_norm_backward(
    z: Tensor, kept: Tensor, lost: Tensor, of_norm: Tensor, of_diagonal: Tensor, shape: list[int],
    count: int,
) -> list[Tensor]:  # fmt: skip
    """Gradient of each operand, fp32."""
    gram = layouts(shape, count)[0]
    with on_device(z):
        product = kept[0]
        if gram.keeps:
            ones = z.new_ones(len(z), dtype=torch.float32)
            product = multiply(Gram(z, ones, gram), list(kept), ones)
        rounded = _unstack(z, count, shape)
        slope = (of_diagonal + 2 * lost * of_norm) * (2 if count == 1 else 1)
        return [
            torch.addcmul(
                found * (of_norm / _scale(z.dtype, gram)), other.float(), slope
            ).contiguous()
            for found, other in zip(_unstack(product, count, shape), reversed(rounded), strict=True)
        ]


@feature_norm_backward.register_fake
def _(
    z: Tensor, kept: Tensor, lost: Tensor, of_norm: Tensor, of_diagonal: Tensor, shape: list[int],
    count: int,
) -> list[Tensor]:  # fmt: skip
    return [of_norm.new_empty(shape) for _ in range(count)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    operands = inputs[0]
    ctx.shape, ctx.count = list(operands[0].shape), len(operands)
    ctx.save_for_backward(*output[2:])


@first_order
def _backward(ctx: Any, of_norm: Tensor, of_diagonal: Tensor, *_: Any) -> tuple[Any, ...]:
    found = feature_norm_backward(*ctx.saved_tensors, of_norm, of_diagonal, ctx.shape, ctx.count)
    return found, None, None, None


feature_norm.register_autograd(_backward, setup_context=_setup)


def _macs(shapes: Sequence[Sequence[int]], needs_grad: bool) -> int:
    grams = layouts(shapes[0], len(shapes))
    times = 3 if needs_grad and not grams[0].keeps else 1  # the gradient's product with the rows
    return times * sum(gram.macs for gram in grams)


def _backward_macs(z: Sequence[int], shape: Sequence[int], count: int) -> int:
    grams = layouts(shape, count)
    return 2 * sum(gram.macs for gram in grams) if grams[0].keeps else 0


register_macs(feature_norm, _macs, constants=(2,))
register_macs(feature_norm_backward, _backward_macs, constants=(5, 6))
