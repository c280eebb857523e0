"""Matrix products by the library that is best at them, in fp32."""

import torch
from torch import Tensor

from lossbench.kernels.gram import Gram
from lossbench.kernels.plan import Region
from lossbench.losses.devices import device_type
from lossbench.losses.precision import fp32_products


class Product:
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
        add_product(self._result[rows], g, right, self._gram.precision)

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
            add_product(self._result, self._sums.T, self._gram.mean, "ieee")
        return self._result


def matrix_product(left: Tensor, right: Tensor, out: Tensor, precision: str) -> None:
    """``out = left @ right`` in fp32, by the library that is best at it."""
    if left.dtype == torch.float32:
        with fp32_products(precision):
            torch.mm(left, right, out=out)
    elif device_type(left) == "cuda":
        torch.mm(left, right, out_dtype=torch.float32, out=out)
    else:
        torch.mm(left.float(), right.float(), out=out)


def add_product(out: Tensor, left: Tensor, right: Tensor, precision: str) -> None:
    """``out += left @ right``, in fp32."""
    assert left.dtype == right.dtype  # a GPU multiplies no others
    if left.dtype == torch.float32:
        with fp32_products(precision):
            torch.addmm(out, left, right, out=out)
    elif device_type(left) == "cuda":
        torch.addmm(out, left, right, out_dtype=torch.float32, out=out)
    else:
        torch.addmm(out, left.float(), right.float(), out=out)
