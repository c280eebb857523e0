"""What a loss makes of a tile of products of rows, while the tile is in registers.

A tile is finished in strips of a few columns, one after another: a strip needs fewer registers, and
most strips need the least work. They are whole, without padding, the Gram's diagonal or a pair that
is left out, and (for a loss that knows a cheaper way then) no entry of theirs is far from 0.

The functions hand on, as tuples,

``place``
    of the region in the Gram: top, left, its height and width; rows of a view with padding and
    without.
``facts``
    of the rows: renorm, logsumexp, weight in the loss; and both parameters of the loss.
``targets``
    where results go: G and its mirror image, those of the other operand, their width; what each
    strip says of its rows, and of its columns.
"""

from lossbench.kernels.language import jit, tl

LOG2_E = tl.constexpr(1.4426950408889634)


@jit
def finish(
    product, other, down, across, place, facts, targets,
    ENTRY: tl.constexpr, NEAR: tl.constexpr, NEAR_HOLDS: tl.constexpr, KIND: tl.constexpr,
    EXCLUDE: tl.constexpr, GRADIENT: tl.constexpr, MIRROR: tl.constexpr, SUMS: tl.constexpr,
    TRIANGULAR: tl.constexpr, STRIP: tl.constexpr,
):  # fmt: skip
    """Finish the tile at (``down``, ``across``) of a region.

    ``KIND``:
        "sum": the sum of ``ENTRY`` over its pairs, and G, the derivative in the Gram.
        "cross": the sum of the products with those of another Gram, and ``p0`` G of both.
        "logsumexp": each row's and column's largest score and sum of exponentials, base 2.
        "softmax": G of a loss of the rows' logsumexps.

    Returns:
        Each row's part of the sum; zeros where ``KIND`` has none.
    """
    near = True
    if NEAR is not None:
        # rows differ little in renorm: the largest product has about the largest correlation
        largest = tl.max(tl.max(tl.abs(product), axis=1), axis=0)
        largest *= tl.max(_load(facts[0], place[0] + down, product.shape[0]), axis=0)
        largest *= tl.max(_load(facts[0], place[1] + across, product.shape[1]), axis=0)
        near = NEAR_HOLDS(largest, facts[3], facts[4])
    return _finish_strips(
        product, other, near, down, across, place, facts, targets,
        ENTRY, NEAR, NEAR_HOLDS, KIND, EXCLUDE, GRADIENT, MIRROR, SUMS, TRIANGULAR, STRIP,
    )  # fmt: skip


@jit
def _finish_strips(
    product, other, near, down, across, place, facts, targets,
    ENTRY: tl.constexpr, NEAR: tl.constexpr, NEAR_HOLDS: tl.constexpr, KIND: tl.constexpr,
    EXCLUDE: tl.constexpr, GRADIENT: tl.constexpr, MIRROR: tl.constexpr, SUMS: tl.constexpr,
    TRIANGULAR: tl.constexpr, STRIP: tl.constexpr,
):  # fmt: skip
    """Finish a tile strip by strip."""
    columns: tl.constexpr = product.shape[1]
    if columns <= STRIP:
        return _finish_strip(
            product, other, near, down, across, place, facts, targets,
            ENTRY, NEAR, NEAR_HOLDS, KIND, EXCLUDE, GRADIENT, MIRROR, SUMS, TRIANGULAR, STRIP,
        )  # fmt: skip
    else:
        first, second = _halves(product)
        other_first = first
        other_second = second
        if KIND == "cross":
            other_first, other_second = _halves(other)
        total = _finish_strips(
            first, other_first, near, down, across, place, facts, targets,
            ENTRY, NEAR, NEAR_HOLDS, KIND, EXCLUDE, GRADIENT, MIRROR, SUMS, TRIANGULAR, STRIP,
        )  # fmt: skip
        return total + _finish_strips(
            second, other_second, near, down, across + columns // 2, place, facts, targets,
            ENTRY, NEAR, NEAR_HOLDS, KIND, EXCLUDE, GRADIENT, MIRROR, SUMS, TRIANGULAR, STRIP,
        )  # fmt: skip


@jit
def _halves(x):
    """Left and right half of the columns, in the registers where they are."""
    pairs = tl.permute(tl.reshape(x, (x.shape[0], 2, x.shape[1] // 2)), (0, 2, 1))
    return tl.split(pairs)


@jit
def _finish_strip(
    product, other, near, down, across, place, facts, targets,
    ENTRY: tl.constexpr, NEAR: tl.constexpr, NEAR_HOLDS: tl.constexpr, KIND: tl.constexpr,
    EXCLUDE: tl.constexpr, GRADIENT: tl.constexpr, MIRROR: tl.constexpr, SUMS: tl.constexpr,
    TRIANGULAR: tl.constexpr, STRIP: tl.constexpr,
):  # fmt: skip
    """Finish a strip in the way that it allows."""
    top, left, region_down, region_across, rows, batch = place
    length: tl.constexpr = product.shape[0]
    columns: tl.constexpr = product.shape[1]
    row = top + down
    column = left + across
    sample_row = row - tl.where(row >= rows, rows, 0)  # no strip lies across views
    sample_column = column - tl.where(column >= rows, rows, 0)
    whole = (sample_row + length <= batch) & (sample_column + columns <= batch)
    if TRIANGULAR:
        whole &= row + length <= column
    if EXCLUDE:
        is_right = sample_row + length <= sample_column
        whole &= is_right | (sample_column + columns <= sample_row)
    tl.debug_barrier()  # what a strip loads waits for its turn, or there are too few registers
    if NEAR is not None:
        whole &= near
    if whole:
        total = _finish_pairs(
            product, other, down, across, place, facts, targets,
            ENTRY, NEAR, KIND, EXCLUDE, GRADIENT, MIRROR, SUMS, TRIANGULAR, STRIP, False,
        )  # fmt: skip
    else:
        total = _finish_pairs(
            product, other, down, across, place, facts, targets,
            ENTRY, None, KIND, EXCLUDE, GRADIENT, MIRROR, SUMS, TRIANGULAR, STRIP, True,
        )  # fmt: skip
    return total


@jit
def _finish_pairs(
    product, other, down, across, place, facts, targets,
    ENTRY: tl.constexpr, NEAR: tl.constexpr, KIND: tl.constexpr, EXCLUDE: tl.constexpr,
    GRADIENT: tl.constexpr, MIRROR: tl.constexpr, SUMS: tl.constexpr, TRIANGULAR: tl.constexpr,
    STRIP: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Finish the pairs of a strip; ``MASKED``: those of them that count."""
    top, left, region_down, region_across, rows, batch = place
    renorm, lse, row_weights, p0, p1 = facts
    g, g_mirror, g_other, g_other_mirror, width, of_rows, of_columns = targets
    length: tl.constexpr = product.shape[0]
    columns: tl.constexpr = product.shape[1]
    row = top + down
    column = left + across
    i = row + tl.arange(0, length)
    j = column + tl.arange(0, columns)
    second_row = row >= rows
    second_column = column >= rows
    twice = tl.where(second_row == second_column, 2.0, 1.0)  # a pair of one view has two orders
    counts = i[:, None] >= 0
    if MASKED:
        sample_i = i - tl.where(second_row, rows, 0)
        sample_j = j - tl.where(second_column, rows, 0)
        counts = (sample_i[:, None] < batch) & (sample_j[None, :] < batch)
        if EXCLUDE:
            counts &= sample_i[:, None] != sample_j[None, :]
        if TRIANGULAR:
            counts &= i[:, None] <= j[None, :]
    total = tl.zeros((length,), tl.float32)
    slope = product
    if KIND == "cross":
        total = twice * _sum_of_rows(product * other, counts, i, j, EXCLUDE, MASKED)
        if GRADIENT:
            slope = 2 * p0 * product
            if MASKED:
                slope = tl.where(counts, slope, 0.0)
            _store(g_other, g_other_mirror, slope, down, across, width, TRIANGULAR, MIRROR, MASKED)
            slope = 2 * p0 * other
            if MASKED:
                slope = tl.where(counts, slope, 0.0)
    else:
        of_row = _load(renorm, row, length)[:, None]
        of_column = _load(renorm, column, columns)[None, :]
        if NEAR is not None:
            # rho^2 is product * scaled, and the slope in the product is that over rho, * scaled
            scaled = product * (of_row * of_row * (of_column * of_column))
            h, slope = NEAR(product, scaled, twice, p0, p1)
            total = twice * _sum_of_rows(h, counts, i, j, EXCLUDE, MASKED)
        elif KIND == "sum":
            rho = product * of_row * of_column
            if MASKED:
                rho = tl.where(counts, rho, 0.0)  # whose slope is 0
            h, slope = ENTRY(rho, p0, p1)
            total = twice * _sum_of_rows(h, counts, i, j, EXCLUDE, MASKED)
            slope = slope * twice
        else:
            score = product * of_row * (of_column * (p0 * LOG2_E))
            if MASKED:
                score = tl.where(counts, score, float("-inf"))
            if KIND == "logsumexp":
                part = of_rows + across // STRIP * region_down + down
                _store_logsumexp(part, region_down * (region_across // STRIP), score, 1)
                part = of_columns + down // STRIP * region_across + across
                _store_logsumexp(part, region_across * (region_down // STRIP), score, 0)
            else:
                of_i = tl.exp2(score - (_load(lse, row, length) * LOG2_E)[:, None])
                of_j = tl.exp2(score - (_load(lse, column, columns) * LOG2_E)[None, :])
                slope = of_i * _load(row_weights, row, length)[:, None]
                slope += of_j * _load(row_weights, column, columns)[None, :]
        if NEAR is None:
            slope = slope * of_row * of_column
    if GRADIENT:
        _store(g, g_mirror, slope, down, across, width, TRIANGULAR, MIRROR, MASKED)
        if SUMS:
            part = of_rows + across // STRIP * region_down + down
            tl.store(part + tl.arange(0, length), tl.sum(slope, axis=1))
            part = of_columns + down // STRIP * region_across + across
            if MASKED and TRIANGULAR:
                slope = tl.where(i[:, None] < j[None, :], slope, 0.0)
            tl.store(part + tl.arange(0, columns), tl.sum(slope, axis=0))
    return total


@jit
def _load(facts, first, COUNT: tl.constexpr):
    """Facts of rows ``first`` and following."""
    return tl.load(facts + tl.multiple_of(first, 16) + tl.arange(0, COUNT))


@jit
def _sum_of_rows(h, counts, i, j, EXCLUDE: tl.constexpr, MASKED: tl.constexpr):
    """Sum of each row over the pairs that count."""
    if MASKED:
        h = tl.where(counts, h, 0.0)
        if not EXCLUDE:  # a row with itself is no pair of two orders
            h = tl.where(i[:, None] == j[None, :], 0.5 * h, h)
    return tl.sum(h, axis=1)


@jit
def _store_logsumexp(out, size, score, AXIS: tl.constexpr):
    """Write the largest score along an axis, and the sum of exponentials after ``size``."""
    largest = tl.max(score, axis=AXIS)
    shift = tl.where(largest == float("-inf"), 0.0, largest)
    place = out + tl.arange(0, largest.shape[0])
    tl.store(place, largest)
    tl.store(place + size, tl.sum(tl.exp2(score - tl.expand_dims(shift, AXIS)), axis=AXIS))


@jit
def _store(
    g, g_mirror, slope, down, across, width,
    TRIANGULAR: tl.constexpr, MIRROR: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Write a strip of G, and its mirror image; of a strip on the diagonal each entry once."""
    slope = slope.to(g.dtype.element_ty)
    i = tl.arange(0, slope.shape[0])
    j = tl.arange(0, slope.shape[1])
    # the far part of an address once, in 64 bits
    place = g + tl.multiple_of(down * width.to(tl.int64) + across, 16)
    place += i[:, None] * width + j[None, :]
    mirror = g_mirror + tl.multiple_of(across * width.to(tl.int64) + down, 16)
    mirror += j[:, None] * width + i[None, :]
    if MASKED and TRIANGULAR:
        i += down
        j += across
        tl.store(place, slope, mask=i[:, None] <= j[None, :])
        if MIRROR:
            tl.store(mirror, tl.trans(slope), mask=i[None, :] < j[:, None])
    else:
        tl.store(place, slope)
        if MIRROR:
            tl.store(mirror, tl.trans(slope))
