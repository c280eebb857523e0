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
        largest = tl.max(tl.abs(product))
        largest *= tl.max(_load(facts[0], place[0] + down, product.shape[0]), axis=0)
        largest *= tl.max(_load(facts[0], place[1] + across, product.shape[1]), axis=0)
        near = NEAR_HOLDS(largest, facts[3], facts[4])
    return _finish_strips(
        product, other, near, down, across, place, facts, targets,
        ENTRY, NEAR, KIND, EXCLUDE, GRADIENT, MIRROR, SUMS, TRIANGULAR, STRIP,
        product.shape[1] == STRIP,
    )  # fmt: skip


@jit
def _finish_strips(
    product, other, near, down, across, place, facts, targets,
    ENTRY: tl.constexpr, NEAR: tl.constexpr, KIND: tl.constexpr, EXCLUDE: tl.constexpr,
    GRADIENT: tl.constexpr, MIRROR: tl.constexpr, SUMS: tl.constexpr, TRIANGULAR: tl.constexpr,
    STRIP: tl.constexpr, ALONE: tl.constexpr,
):  # fmt: skip
    """Finish a tile strip by strip."""
    columns: tl.constexpr = product.shape[1]
    if columns <= STRIP:
        total = _finish_strip(
            product, other, near, down, across, place, facts, targets,
            ENTRY, NEAR, KIND, EXCLUDE, GRADIENT, MIRROR, SUMS, TRIANGULAR, STRIP, ALONE,
        )  # fmt: skip
    else:
        first, second = _halves(product)
        other_first = first
        other_second = second
        if KIND == "cross":
            other_first, other_second = _halves(other)
        total = _finish_strips(
            first, other_first, near, down, across, place, facts, targets,
            ENTRY, NEAR, KIND, EXCLUDE, GRADIENT, MIRROR, SUMS, TRIANGULAR, STRIP, ALONE,
        )  # fmt: skip
        total += _finish_strips(
            second, other_second, near, down, across + columns // 2, place, facts, targets,
            ENTRY, NEAR, KIND, EXCLUDE, GRADIENT, MIRROR, SUMS, TRIANGULAR, STRIP, ALONE,
        )  # fmt: skip
    return total


@jit
def _halves(x):
    """Left and right half of the columns, in the registers where they are."""
    pairs = tl.permute(tl.reshape(x, (x.shape[0], 2, x.shape[1] // 2)), (0, 2, 1))
    return tl.split(pairs)


@jit
def _finish_strip(
    product, other, near, down, across, place, facts, targets,
    ENTRY: tl.constexpr, NEAR: tl.constexpr, KIND: tl.constexpr, EXCLUDE: tl.constexpr,
    GRADIENT: tl.constexpr, MIRROR: tl.constexpr, SUMS: tl.constexpr, TRIANGULAR: tl.constexpr,
    STRIP: tl.constexpr, ALONE: tl.constexpr,
):  # fmt: skip
    """Finish a strip in the way that it allows."""
    length: tl.constexpr = product.shape[0]
    columns: tl.constexpr = product.shape[1]
    top, left, _, _, rows, batch = place
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
        if ALONE:
            total = _finish_pairs(
                product, other, down, across, place, facts, targets,
                ENTRY, None, KIND, EXCLUDE, GRADIENT, MIRROR, SUMS, TRIANGULAR, STRIP, True,
            )  # fmt: skip
        else:  # more registers an entry, beside those of the tile: half of the strip at a time
            first, second = _halves(product)
            other_first = first
            other_second = second
            if KIND == "cross":
                other_first, other_second = _halves(other)
            total = _finish_pairs(
                first, other_first, down, across, place, facts, targets,
                ENTRY, None, KIND, EXCLUDE, GRADIENT, MIRROR, SUMS, TRIANGULAR, STRIP, True,
            )  # fmt: skip
            tl.debug_barrier()
            total += _finish_pairs(
                second, other_second, down, across + columns // 2, place, facts, targets,
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
    """Finish the pairs of a strip; with ``MASKED`` one that is not whole.

    Of a strip that crosses the diagonal, rows whose entries are all right of it stand for their
    mirror images too; the square on the diagonal has both orders of its pairs; rows below it count
    nowhere. So rows have weights, and no entry needs a mask for its side of the diagonal.
    """
    top, left, _, _, rows, batch = place
    row = top + down
    column = left + across
    crosses: tl.constexpr = MASKED and TRIANGULAR
    twice = tl.where((row >= rows) == (column >= rows), 2.0, 1.0)  # a pair of one view: two orders
    weight, is_right, is_above = _sides(column - row, twice, product.shape, crosses)
    if KIND == "cross":
        h = product * other  # 0 where rows only fill a tile
        slope = 2 * facts[3] * other
    elif KIND == "sum":
        h, slope = _sum(
            product, row, column, twice, facts, rows, batch, ENTRY, NEAR, EXCLUDE, MASKED
        )  # fmt: skip
    else:
        h = _score(product, row, column, facts, rows, batch, EXCLUDE, MASKED)
        slope = h
    if KIND == "softmax":
        slope = _softmax(h, row, column, facts)
    if GRADIENT:
        g, g_mirror, g_other, g_other_mirror, width, _, _ = targets
        _store(g, g_mirror, slope, is_right, is_above, down, across, width, MIRROR, crosses)
        if KIND == "cross":
            _store(
                g_other, g_other_mirror, 2 * facts[3] * product, is_right, is_above, down, across,
                width, MIRROR, crosses,
            )  # fmt: skip
    if SUMS or KIND == "logsumexp":
        _say(slope, is_right, is_above, down, across, place, targets, SUMS, crosses, STRIP)
    if (KIND == "sum") | (KIND == "cross"):
        weight *= tl.sum(h, axis=1)
    return weight


@jit
def _sides(offset, twice, SHAPE: tl.constexpr, CROSSES: tl.constexpr):
    """Weight of each row of a strip, which rows are right of the diagonal, and which not below.

    ``offset``: by how much the first column is right of the first row.
    """
    i = tl.arange(0, SHAPE[0])
    is_right = i >= 0
    is_above = is_right
    weight = tl.zeros((SHAPE[0],), tl.float32) + twice
    if CROSSES:
        offset = tl.multiple_of(offset, 16)
        is_right = i < offset
        is_above = i < offset + SHAPE[1]
        weight = tl.where(is_right, twice, tl.where(is_above, 1.0, 0.0))
    return weight, is_right, is_above


@jit
def _say(
    value, is_right, is_above, down, across, place, targets,
    SUMS: tl.constexpr, CROSSES: tl.constexpr, STRIP: tl.constexpr,
):  # fmt: skip
    """Write what a strip says of its rows and of its columns: sums of G, or logsumexps."""
    nothing: tl.constexpr = 0.0 if SUMS else float("-inf")
    _, _, region_down, region_across, _, _ = place
    half: tl.constexpr = STRIP // 2
    of_rows = targets[5] + across // half * region_down + down
    of_columns = targets[6] + down // STRIP * region_across + across
    if CROSSES:
        value = tl.where(is_above[:, None], value, nothing)
    if SUMS:
        tl.store(of_rows + tl.arange(0, value.shape[0]), tl.sum(value, axis=1))
    else:
        _store_logsumexp(of_rows, region_down * (region_across // half), value, 1)
    if CROSSES:
        value = tl.where(is_right[:, None], value, nothing)
    if SUMS:
        tl.store(of_columns + tl.arange(0, value.shape[1]), tl.sum(value, axis=0))
    else:
        _store_logsumexp(of_columns, region_across * (region_down // STRIP), value, 0)


@jit
def _sum(
    product, row, column, twice, facts, rows, batch,
    ENTRY: tl.constexpr, NEAR: tl.constexpr, EXCLUDE: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """What a loss makes of each entry, and ``twice`` its slope in the product."""
    of_row = _load(facts[0], row, product.shape[0])[:, None]
    of_column = _load(facts[0], column, product.shape[1])[None, :]
    if NEAR is not None:
        # rho^2 is product * scaled
        scaled = product * (of_row * of_row * (of_column * of_column))
        h, slope = NEAR(product, scaled, twice, facts[3], facts[4])
    else:
        rho = product * of_row * of_column
        if MASKED:
            counts = _counts(row, column, rows, batch, EXCLUDE, product.shape)
            rho = tl.where(counts, rho, 0.0)  # whose slope is 0
        h, slope = ENTRY(rho, facts[3], facts[4])
        if MASKED:
            h = tl.where(counts, h, 0.0)
        slope = slope * (twice * of_row) * of_column
    return h, slope


@jit
def _score(
    product, row, column, facts, rows, batch, EXCLUDE: tl.constexpr, MASKED: tl.constexpr
):  # fmt: skip
    """Scores, base 2; of pairs that do not count -inf."""
    of_row = _load(facts[0], row, product.shape[0])[:, None]
    of_column = _load(facts[0], column, product.shape[1])[None, :]
    score = product * of_row * (of_column * (facts[3] * LOG2_E))
    if MASKED:
        counts = _counts(row, column, rows, batch, EXCLUDE, product.shape)
        score = tl.where(counts, score, float("-inf"))
    return score


@jit
def _softmax(score, row, column, facts):
    """Slope, in the product, of a loss of the logsumexps of rows and columns."""
    renorm, lse, row_weights, _, _ = facts
    length: tl.constexpr = score.shape[0]
    columns: tl.constexpr = score.shape[1]
    of_i = tl.exp2(score - (_load(lse, row, length) * LOG2_E)[:, None])
    of_j = tl.exp2(score - (_load(lse, column, columns) * LOG2_E)[None, :])
    slope = of_i * _load(row_weights, row, length)[:, None]
    slope += of_j * _load(row_weights, column, columns)[None, :]
    return slope * _load(renorm, row, length)[:, None] * _load(renorm, column, columns)[None, :]


@jit
def _counts(row, column, rows, batch, EXCLUDE: tl.constexpr, SHAPE: tl.constexpr):
    """Which pairs are of two samples, and with ``EXCLUDE`` of two different ones."""
    i = row - tl.where(row >= rows, rows, 0) + tl.arange(0, SHAPE[0])
    j = column - tl.where(column >= rows, rows, 0) + tl.arange(0, SHAPE[1])
    counts = (i[:, None] < batch) & (j[None, :] < batch)
    if EXCLUDE:
        counts &= i[:, None] != j[None, :]
    return counts


@jit
def _load(facts, first, COUNT: tl.constexpr):
    """Facts of rows ``first`` and following."""
    return tl.load(facts + tl.multiple_of(first, 16) + tl.arange(0, COUNT))


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
    g, g_mirror, slope, is_right, is_above, down, across, width,
    MIRROR: tl.constexpr, CROSSES: tl.constexpr,
):  # fmt: skip
    """Write a strip of G at (``down``, ``across``) of a region, and its mirror image."""
    slope = slope.to(g.dtype.element_ty)
    i = tl.arange(0, slope.shape[0])
    j = tl.arange(0, slope.shape[1])
    # the far part of an address once, in 64 bits
    place = g + tl.multiple_of(down * width.to(tl.int64) + across, 16)
    place += i[:, None] * width + j[None, :]
    mirror = g_mirror + tl.multiple_of(across * width.to(tl.int64) + down, 16)
    mirror += j[:, None] * width + i[None, :]
    if CROSSES:
        tl.store(place, slope, mask=is_above[:, None])
        if MIRROR:
            tl.store(mirror, tl.trans(slope), mask=is_right[None, :])
    else:
        tl.store(place, slope)
        if MIRROR:
            tl.store(mirror, tl.trans(slope))
