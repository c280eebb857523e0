"""First and last step of losses of normalised rows: embeddings to rows of length one, and back.

One program holds a few samples, of both views. The statistics are fp32 and in two passes over the
row; what the Gram is made of, ``z``, is rounded to the dtype of the operands. ``renorm`` holds
|unit row| / |rounded row|: products of rounded rows times it are correlations again, so that none
of a 16-bit dtype exceeds 1 (without it, half of the positives at 1 - rho = 5e-7 would).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lossbench.kernels import plan
from lossbench.kernels.language import cdiv, power_of_two, round_up
from lossbench.kernels.normalise import gradient_kernel, mean_kernel, rows_kernel
from lossbench.kernels.plan import Layout

OPERAND = {
    torch.float32: torch.float32,
    torch.float16: torch.float16,
    torch.bfloat16: torch.float16,
}
"""Dtype of the products' operands: no entry of a normalised row needs the range of bf16, and the
digits of fp16 leave an eighth of the error in rho."""
CHUNK = 1024
"""Features of a row that a program holds at once."""
BLOCK = 2048
"""Entries that it holds at once: of short rows several."""
WARPS = 4
MEAN_ROWS, MEAN_CHUNK, MEAN_PARTS = 16, 128, 32
"""Rows and features that a program which adds up rows holds at once, and programs for a feature."""
FACTS = ("mean", "offset", "divisor", "along", "renorm")
"""Of each row. ``offset`` is the mean of what is left without the rounded mean; ``divisor`` is inf
for a row without a direction; ``along`` is 1 / |row|^2 where its length is fixed, so that the part
of a gradient along it goes, or else 0."""
PAIR_FACTS = ("h", "slope_rho", "slope_gap", "rho", "gap")
"""Of each positive pair: its part of the loss and the slopes of that; gap = 1 - |rho|."""


@dataclass(frozen=True)
class Rows:
    """Rows of both views, ready for the Gram.

    Attributes:
        z: 2 * rows x depth, in the dtype of the operands, padded with zeros.
        facts: ``FACTS`` x 2 * rows.
        pairs: ``PAIR_FACTS`` x N.
    """

    z: Tensor
    facts: Tensor
    pairs: Tensor

    @property
    def renorm(self) -> Tensor:
        """|unit row| / |rounded row|."""
        return self.facts[FACTS.index("renorm")]

    @property
    def rho(self) -> Tensor:
        """Correlation of each positive pair."""
        return self.pairs[PAIR_FACTS.index("rho")]

    @property
    def slope_rho(self) -> Tensor:
        """Slope of the loss in it."""
        return self.pairs[PAIR_FACTS.index("slope_rho")]


@dataclass(frozen=True)
class Normalisation:
    """How rows are made of embeddings.

    Attributes:
        positive: kernel function ``(rho, gap, p0, p1) -> (h, dh/drho, dh/dgap)``.
        p0: its first parameter.
        p1: its second parameter.
        centre: subtract each row's mean.
        radius: rows that are longer are shortened to it; 0: every row gets length one.
    """

    positive: Any
    p0: float = 0.0
    p1: float = 0.0
    centre: bool = False
    radius: float = 0.0


def empty_rows(z_a: Tensor, layout: Layout) -> Rows:
    """Room for the rows of both views."""
    z = z_a.new_empty(2 * layout.rows, layout.depth, dtype=OPERAND[z_a.dtype])
    facts = z_a.new_empty(len(FACTS), 2 * layout.rows, dtype=torch.float32)
    pairs = z_a.new_empty(len(PAIR_FACTS), layout.batch, dtype=torch.float32)
    return Rows(z, facts, pairs)


def _blocks(dim: int) -> dict[str, int]:
    """Rows and features that a program holds at once."""
    chunk = min(CHUNK, power_of_two(dim))
    return {
        "ROWS": min(max(1, BLOCK // chunk), plan.ROW_MULTIPLE),
        "CHUNK": chunk,
        "num_warps": WARPS,
    }


def make_rows(z_a: Tensor, z_b: Tensor, how: Normalisation, layout: Layout, precision: str) -> Rows:
    """Normalise the rows of two contiguous views, N x D, for products of a precision."""
    found = empty_rows(z_a, layout)
    dim = z_a.shape[1]
    # entries of about 1 are where fp16 has the most digits
    factor = dim**0.5 / max(1.0, how.radius) if found.z.dtype == torch.float16 else 1.0
    blocks = _blocks(dim)
    rows_kernel[(layout.rows // blocks["ROWS"],)](
        z_a, z_b, found.z, found.facts, found.pairs, layout.batch, layout.rows, dim, layout.depth,
        factor, how.p0, how.p1, how.radius, POSITIVE=how.positive, CENTRE=how.centre,
        CLIP=how.radius > 0, TF32=precision == "tf32" and found.z.dtype == torch.float32, **blocks,
    )  # fmt: skip
    return found


def mean_rows(z_a: Tensor, z_b: Tensor, rows: Rows, layout: Layout) -> Tensor | None:
    """Mean row of each view as ``rows.z`` would have it unrounded, 2 x depth; None of fp32."""
    if rows.z.dtype == torch.float32:
        return None
    dim = z_a.shape[1]
    found = rows.facts.new_zeros(2, MEAN_PARTS, layout.depth)
    part = round_up(cdiv(layout.batch, MEAN_PARTS), MEAN_ROWS)
    for x, first, out in ((z_a, 0, found[0]), (z_b, layout.rows, found[1])):
        mean_kernel[(cdiv(dim, MEAN_CHUNK), MEAN_PARTS)](
            x, rows.facts[:, first:], out, layout.batch, 2 * layout.rows, dim, layout.depth, part,
            ROWS=MEAN_ROWS, CHUNK=MEAN_CHUNK, num_warps=WARPS,
        )  # fmt: skip
    return found.sum(dim=1) / layout.batch


def project(
    z_a: Tensor, z_b: Tensor, product: Tensor, rows: Rows, how: Normalisation, layout: Layout
) -> Tensor:
    """Gradient of the embeddings from ``G z``; it takes the place of ``rows.z``.

    Returns:
        2 * rows x depth; of 16-bit operands bf16, whose range gradients need.
    """
    narrow = rows.z.dtype.itemsize == 2
    out = rows.z.view(torch.bfloat16) if narrow else rows.z
    dim = z_a.shape[1]
    blocks = _blocks(dim)
    unused = rows.facts
    for x, first in ((z_a, 0), (z_b, layout.rows)):
        gradient_kernel[(cdiv(layout.batch, blocks["ROWS"]),)](
            x, unused, rows.facts[:, first:], unused, unused, product[first:], unused, out[first:],
            layout.batch, 2 * layout.rows, dim, layout.depth, layout.depth,
            PROJECT=True, POSITIVES=False, CENTRE=how.centre, **blocks,
        )  # fmt: skip
    return out


def gradients(
    z_a: Tensor, z_b: Tensor, source: Tensor, rows: Rows, weights: Tensor, centre: bool,
    layout: Layout, projected: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of both views: of the positives and of the Gram.

    Args:
        z_a: N x D, contiguous.
        z_b: N x D, contiguous.
        source: ``G z``, or if ``projected`` what ``project`` made of it.
        rows: of the views; ``z`` is not read.
        weights: incoming gradients of the two parts of the loss, positives first.
        centre: each row's mean was subtracted.
        layout: of the rows.
        projected: what ``source`` is.
    """
    dim = z_a.shape[1]
    blocks = _blocks(dim)
    out = torch.empty_like(z_a), torch.empty_like(z_b)
    for x, other, first in ((z_a, z_b, 0), (z_b, z_a, layout.rows)):
        facts, of_other = rows.facts[:, first:], rows.facts[:, layout.rows - first :]
        gradient_kernel[(cdiv(layout.batch, blocks["ROWS"]),)](
            x, other, facts, of_other, rows.pairs, source[first:], weights,
            out[first > 0], layout.batch, 2 * layout.rows, dim, layout.depth, dim,
            PROJECT=not projected, POSITIVES=True, CENTRE=centre, **blocks,
        )  # fmt: skip
    return out
