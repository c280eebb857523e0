"""Kernels that make rows of length one of embeddings, and take gradients back through that.

A program holds a few rows, a chunk of their features at a time. Facts of rows and of pairs lie one
field after another, as ``rows.FACTS`` and ``rows.PAIR_FACTS`` name them.
"""

from lossbench.kernels.language import jit, tl


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
    length = tl.sqrt_rn(tl.sum(squares, axis=1))  # the approximation takes 1e-20 for 0
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
        length = tl.sqrt_rn(tl.maximum(square, 0.0, propagate_nan=tl.PropagateNan.ALL))
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
def _rounded(x, dtype: tl.constexpr, TF32: tl.constexpr):
    """Operands of products: tensor cores would cut the digits off that tf32 has not, not round."""
    narrow = x.to(dtype)
    if TF32:
        bits = narrow.to(tl.int32, bitcast=True)
        to_even = 0xFFF + ((bits >> 13) & 1)
        rounded = ((bits + to_even) & -0x2000).to(tl.float32, bitcast=True)
        narrow = tl.where(x == x, rounded, narrow)  # NaN would overflow
    return narrow


@jit
def rows_kernel(
    x_a, x_b, z, row_out, pair_out, batch, rows, dim, depth, factor, p0, p1, radius,
    POSITIVE: tl.constexpr, CENTRE: tl.constexpr, CLIP: tl.constexpr, TF32: tl.constexpr,
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
        narrow_a = _rounded(a * factor, z.dtype.element_ty, TF32)
        narrow_b = _rounded(b * factor, z.dtype.element_ty, TF32)
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
