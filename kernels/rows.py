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

from kernels import plan
from kernels.language import cdiv, jit, power_of_two, round_up, tl
from kernels.plan import Layout

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


def make_rows(z_a: Tensor, z_b: Tensor, how: Normalisation, layout: Layout) -> Rows:
    """Normalise the rows of two contiguous views, N x D."""
    found = empty_rows(z_a, layout)
    dim = z_a.shape[1]
    # entries of about 1 are where fp16 has the most digits
    factor = dim**0.5 / max(1.0, how.radius) if found.z.dtype == torch.float16 else 1.0
    blocks = _blocks(dim)
    rows_kernel[(layout.rows // blocks["ROWS"],)](
        z_a, z_b, found.z, found.facts, found.pairs, layout.batch, layout.rows, dim, layout.depth,
        factor, how.p0, how.p1, how.radius, POSITIVE=how.positive, CENTRE=how.centre,
        CLIP=how.radius > 0, **blocks,
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


@jit
def _load(x, i, column, batch, dim):
    """Entries of rows i of a view in fp32, 0 outside of it, and which are inside."""
    inside = (i[:, None] < batch) & (column[None, :] < dim)
    place = x + i[:, None].to(tl.int64) * dim + column[None, :]
    return tl.load(place, mask=inside, other=0.0).to(tl.float32), inside


@jit
def _norm(
    x, i, batch, dim, radius,
    CENTRE: tl.constexpr, CLIP: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Mean, offset, divisor and along of rows."""
    total = tl.zeros((ROWS, CHUNK), tl.float32)
    squares = tl.zeros((ROWS, CHUNK), tl.float32)
    for start in range(0, dim, CHUNK):
        value, inside = _load(x, i, start + tl.arange(0, CHUNK), batch, dim)
        total += value
        squares += value * value
    length = tl.sqrt(tl.sum(squares, axis=1))
    mean = tl.zeros((ROWS,), tl.float32)
    offset = tl.zeros((ROWS,), tl.float32)
    zero_at = tl.zeros((ROWS,), tl.float32)
    if CENTRE:
        mean = tl.sum(total, axis=1) / dim
        # a constant row up to rounding: 2^-23 is fp32's unit in the last place
        zero_at = length * 1.1920929e-07
        shift = tl.zeros((ROWS, CHUNK), tl.float32)
        squares = tl.zeros((ROWS, CHUNK), tl.float32)
        for start in range(0, dim, CHUNK):
            value, inside = _load(x, i, start + tl.arange(0, CHUNK), batch, dim)
            value = tl.where(inside, value - mean[:, None], 0.0)
            shift += value
            squares += value * value
        offset = tl.sum(shift, axis=1) / dim
        square = tl.sum(squares, axis=1) - offset * offset * dim
        length = tl.sqrt(tl.maximum(square, 0.0, propagate_nan=tl.PropagateNan.ALL))
    has_direction = (length > zero_at) | (length != length)  # NaN is not hidden
    divisor = tl.where(has_direction, length, float("inf"))
    along = tl.where(has_direction, 1.0, 0.0)
    if CLIP:
        short = length <= radius
        divisor = tl.where(short, 1.0, length / radius)
        along = tl.where(short, 0.0, 1 / (radius * radius))
    return mean, offset, divisor, along


@jit
def _unit(x, mean, offset, divisor):
    """Entries of rows, normalised: what rows of two features differ by is not lost to rounding."""
    return tl.div_rn(
        (x - mean[:, None]) - offset[:, None], tl.broadcast_to(divisor[:, None], x.shape)
    )


@jit
def _ratio(exact, rounded):
    """|row| / |rounded row| from their squares; 0 for a row that is zero."""
    return tl.where(rounded > 0, tl.sqrt(exact / tl.where(rounded > 0, rounded, 1.0)), 0.0)


@jit
def rows_kernel(
    x_a, x_b, z, row_out, pair_out, batch, rows, dim, depth, factor, p0, p1, radius,
    POSITIVE: tl.constexpr, CENTRE: tl.constexpr, CLIP: tl.constexpr,
    ROWS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Write rows of both views to ``z`` with their facts, and those of the pairs."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mean_a, offset_a, divisor_a, along_a = _norm(
        x_a, i, batch, dim, radius, CENTRE, CLIP, ROWS, CHUNK
    )
    mean_b, offset_b, divisor_b, along_b = _norm(
        x_b, i, batch, dim, radius, CENTRE, CLIP, ROWS, CHUNK
    )
    product = tl.zeros((ROWS, CHUNK), tl.float32)
    minus = tl.zeros((ROWS, CHUNK), tl.float32)
    plus = tl.zeros((ROWS, CHUNK), tl.float32)
    exact_a = tl.zeros((ROWS, CHUNK), tl.float32)
    exact_b = tl.zeros((ROWS, CHUNK), tl.float32)
    rounded_a = tl.zeros((ROWS, CHUNK), tl.float32)
    rounded_b = tl.zeros((ROWS, CHUNK), tl.float32)
    for start in range(0, depth, CHUNK):
        column = start + tl.arange(0, CHUNK)
        a, inside = _load(x_a, i, column, batch, dim)
        b, inside = _load(x_b, i, column, batch, dim)
        a = tl.where(inside, _unit(a, mean_a, offset_a, divisor_a), 0.0)
        b = tl.where(inside, _unit(b, mean_b, offset_b, divisor_b), 0.0)
        product += a * b
        minus += (a - b) * (a - b)
        plus += (a + b) * (a + b)
        exact_a += a * a
        exact_b += b * b
        narrow_a = (a * factor).to(z.dtype.element_ty)
        narrow_b = (b * factor).to(z.dtype.element_ty)
        place = i[:, None].to(tl.int64) * depth + column[None, :]
        padded = column[None, :] < depth  # and rows that only fill a tile: they are zero
        tl.store(z + place, narrow_a, mask=padded)
        tl.store(z + place + tl.cast(rows, tl.int64) * depth, narrow_b, mask=padded)
        narrow_a = narrow_a.to(tl.float32)
        narrow_b = narrow_b.to(tl.float32)
        rounded_a += narrow_a * narrow_a
        rounded_b += narrow_b * narrow_b
    rho = tl.sum(product, axis=1)
    # the digits of 1 - |rho| that 1 minus a rounded rho would lose
    gap = tl.where(rho < 0, tl.sum(plus, axis=1), tl.sum(minus, axis=1)) / 2
    gap = tl.where((divisor_a == float("inf")) | (divisor_b == float("inf")), 1.0, gap)
    h, slope_rho, slope_gap = POSITIVE(rho, gap, p0, p1)
    renorm_a = _ratio(tl.sum(exact_a, axis=1), tl.sum(rounded_a, axis=1))
    renorm_b = _ratio(tl.sum(exact_b, axis=1), tl.sum(rounded_b, axis=1))
    _store_facts(row_out + i, 2 * rows, mean_a, offset_a, divisor_a, along_a, renorm_a)
    _store_facts(row_out + rows + i, 2 * rows, mean_b, offset_b, divisor_b, along_b, renorm_b)
    zero = tl.zeros((ROWS,), tl.float32)
    real = i < batch
    tl.store(pair_out + i, h + zero, mask=real)
    tl.store(pair_out + batch + i, slope_rho + zero, mask=real)
    tl.store(pair_out + 2 * batch + i, slope_gap + zero, mask=real)
    tl.store(pair_out + 3 * batch + i, rho, mask=real)
    tl.store(pair_out + 4 * batch + i, gap, mask=real)


@jit
def _store_facts(out, fields, mean, offset, divisor, along, renorm):
    tl.store(out, mean)
    tl.store(out + fields, offset)
    tl.store(out + 2 * fields, divisor)
    tl.store(out + 3 * fields, along)
    tl.store(out + 4 * fields, renorm)


@jit
def mean_kernel(
    x, facts, out, batch, fields, dim, depth, part, ROWS: tl.constexpr, CHUNK: tl.constexpr
):  # fmt: skip
    """Sum of a part of the rows of a view, each as it was before it was rounded."""
    column = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    first = tl.program_id(1) * part
    total = tl.zeros((CHUNK,), tl.float32)
    for start in range(first, tl.minimum(first + part, batch), ROWS):
        i = start + tl.arange(0, ROWS)
        real = i < batch
        mean = tl.load(facts + i, mask=real, other=0.0)
        offset = tl.load(facts + fields + i, mask=real, other=0.0)
        divisor = tl.load(facts + 2 * fields + i, mask=real, other=1.0)
        renorm = tl.load(facts + 4 * fields + i, mask=real, other=0.0)
        inverse = tl.where(renorm > 0, 1 / tl.where(renorm > 0, renorm, 1.0), 0.0)
        value, inside = _load(x, i, column, batch, dim)
        value = _unit(value, mean, offset, divisor) * inverse[:, None]
        total += tl.sum(tl.where(inside, value, 0.0), axis=0)
    tl.store(out + tl.program_id(1) * depth + column, total, mask=column < dim)


@jit
def _along(
    g, x, i, depth, batch, dim, mean, offset, divisor,
    CENTRE: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The mean of each row's gradient, and its part along the row."""
    total = tl.zeros((ROWS, CHUNK), tl.float32)
    along = tl.zeros((ROWS, CHUNK), tl.float32)
    for start in range(0, dim, CHUNK):
        column = start + tl.arange(0, CHUNK)
        a, inside = _load(x, i, column, batch, dim)
        place = i[:, None].to(tl.int64) * depth + column[None, :]
        value = tl.load(g + place, mask=inside, other=0.0)
        total += value
        along += value * _unit(a, mean, offset, divisor)
    mean_g = tl.zeros((ROWS,), tl.float32)
    if CENTRE:
        mean_g = tl.sum(total, axis=1) / dim
    return mean_g, tl.sum(along, axis=1)


@jit
def gradient_kernel(
    x, x_other, facts, facts_other, pairs, source, weights, out,
    batch, fields, dim, depth, out_stride,
    PROJECT: tl.constexpr, POSITIVES: tl.constexpr, CENTRE: tl.constexpr,
    ROWS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Gradients of rows of one view, from that of the Gram and those of the positive pairs.

    With ``PROJECT``, ``source`` is what the products of the Gram's gradient with ``z`` gave, and
    it goes back through the normalisation; otherwise it has done so already. What goes is taken
    from the exact rows: of rows that are nearly equal, it is nearly all. With ``POSITIVES`` both
    parts are weighted by the loss's two incoming gradients, ``weights``, and added.
    """
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    real = i < batch
    mean = tl.load(facts + i, mask=real, other=0.0)
    offset = tl.load(facts + fields + i, mask=real, other=0.0)
    divisor = tl.load(facts + 2 * fields + i, mask=real, other=1.0)
    along = tl.load(facts + 3 * fields + i, mask=real, other=0.0)[:, None]
    scale = (1 / divisor)[:, None]
    if PROJECT:
        renorm = tl.load(facts + 4 * fields + i, mask=real, other=0.0)[:, None]
        inverse = tl.where(renorm > 0, 1 / tl.where(renorm > 0, renorm, 1.0), 0.0)
        mean_g, part = _along(
            source, x, i, depth, batch, dim, mean, offset, divisor, CENTRE, ROWS, CHUNK
        )
        part = part[:, None] * along
    if POSITIVES:
        mean_other = tl.load(facts_other + i, mask=real, other=0.0)
        offset_other = tl.load(facts_other + fields + i, mask=real, other=0.0)
        divisor_other = tl.load(facts_other + 2 * fields + i, mask=real, other=1.0)
        rho = tl.load(pairs + 3 * batch + i, mask=real, other=0.0)[:, None]
        gap = tl.load(pairs + 4 * batch + i, mask=real, other=0.0)[:, None]
        sign = tl.where(rho < 0, -1.0, 1.0)
        own = tl.load(weights)
        weight = tl.load(weights + 1)
        slope_rho = own * tl.load(pairs + batch + i, mask=real, other=0.0)[:, None]
        slope_gap = own * tl.load(pairs + 2 * batch + i, mask=real, other=0.0)[:, None]
    for start in range(0, dim, CHUNK):
        column = start + tl.arange(0, CHUNK)
        inside = (i[:, None] < batch) & (column[None, :] < dim)
        place = i[:, None].to(tl.int64) * depth + column[None, :]
        g = tl.load(source + place, mask=inside, other=0.0).to(tl.float32)
        a, inside = _load(x, i, column, batch, dim)
        a = _unit(a, mean, offset, divisor)
        if PROJECT:
            g = scale * inverse * ((g - mean_g[:, None]) - a * part)
        if POSITIVES:
            b, inside = _load(x_other, i, column, batch, dim)
            b = _unit(b, mean_other, offset_other, divisor_other)
            # (a - b) - a gap, not b - a rho: near rho = 1 both are small, and b - a rho cancels
            near = slope_gap * ((a - sign * b) - a * (gap * along))
            near += slope_rho * (b - a * (rho * along))
            g = weight * g + scale * near
        place = i[:, None].to(tl.int64) * out_stride + column[None, :]
        g = tl.where(inside, g, 0.0)  # beyond the row it may not fit in 16 bits
        tl.store(out + place, g.to(out.dtype.element_ty), mask=inside)
