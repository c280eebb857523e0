"""Matrix products by the library that is best at them, in fp32."""

import torch
from torch import Tensor

from lossbench.kernels.gram import Gram
from lossbench.kernels.plan import Region
from lossbench.losses.devices import device_type
from lossbench.losses.precision import fp32_products


class RowSums:
    """Sums of G's rows over the columns of each view, as the kernels' strips say them.

    Attributes:
        wanted: what rows share is kept out of the product, which needs the sums.
        found: 2 x 2 * rows; of nothing if they are not wanted.
    """

    def __init__(self, gram: Gram, needs_grad: bool) -> None:
        self.wanted = needs_grad and gram.mean is not None
        self.found = gram.renorm.new_zeros(2 if self.wanted else 0, len(gram.z))
        self._rows = gram.layout.rows

    def add(self, region: Region, of_rows: Tensor, of_columns: Tensor) -> None:
        """Add what the strips of a region say of its rows, and of the mirror image's."""
        self._add(region.top, region.left, region.across, of_rows[0])
        self._add(region.left, region.top, region.down, of_columns[0])

    def _add(self, top: int, left: int, across: int, said: Tensor) -> None:
        strips, down = said.shape
        in_first = min(max(0, self._rows - left), across) * strips // across
        for view, part in enumerate((said[:in_first], said[in_first:])):
            self.found[view, top : top + down] += part.sum(dim=0)


class Product:
    """``G z`` in fp32, added up over super-blocks.

    Where the rows' exact mean is known, operands of 16 bits are rounded once more, to the dtype of
    G, less what the rounded rows of their view share: of rows that are nearly equal, rounding would
    leave little of their differences, which are all that the gradient has once its part along each
    row is gone. Their exact mean takes the place of what they share, in fp32.

    Args:
        gram: whose rows are multiplied.
        sums: of G's rows over each view's columns, complete when ``finish`` is called.
    """

    def __init__(self, gram: Gram, sums: Tensor) -> None:
        self._gram, self._sums = gram, sums
        self._result = torch.empty_like(gram.z, dtype=torch.float32)
        self._begun: set[int] = set()
        self._right: tuple[slice, Tensor] | None = None
        self._shared: Tensor | None = None
        if gram.mean is not None:
            views = gram.z.unflatten(0, (-1, gram.layout.rows))
            self._shared = views.sum(dim=1, dtype=torch.float32) / gram.layout.batch

    def add(self, gradients: list[Tensor], block: Region) -> None:
        """Add the products of a super-block's G, and of its mirror image, with ``z``."""
        for operand, g in enumerate(gradients):
            first = operand * self._gram.layout.rows
            rows = slice(first + block.top, first + block.top + block.down)
            columns = slice(first + block.left, first + block.left + block.across)
            right = self._without_shared(columns, g.dtype)
            self._add(rows, g, right)
            if block.triangular:
                self._right = rows, right  # those of the other blocks of its rows
            else:
                self._add(columns, g.T, self._without_shared(rows, g.dtype))

    def _add(self, rows: slice, g: Tensor, right: Tensor) -> None:
        out, precision = self._result[rows], self._gram.precision
        if rows.start in self._begun:
            add_product(out, g, right, precision)
        else:
            matrix_product(g, right, out, precision)
            self._begun.add(rows.start)

    def _without_shared(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Rows less what they share, rounded to the dtype of G."""
        z, length = self._gram.z, self._gram.layout.rows
        if self._shared is None:
            return z[rows]
        if self._right is not None and self._right[0] == rows:
            return self._right[1]
        found = torch.empty_like(z[rows], dtype=dtype)
        for view, shared in enumerate(self._shared):
            first, last = max(rows.start, view * length), min(rows.stop, (view + 1) * length)
            if first < last:
                inside = slice(first - rows.start, last - rows.start)
                torch.sub(z[first:last], shared, out=found[inside])
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
