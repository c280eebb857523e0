"""Tiles of the symmetric Gram of stacked rows, and what a loss makes of each.

Rows are stacked: view a at 0, view b at ``rows``, each padded to whole tiles. A launch covers a
region of the Gram, which begins at (``top``, ``left``). In a triangular region, whose rows are its
columns, tiles below the diagonal are left out.

A tile is made in one of two ways, and finished by the same function: ``fused_kernel`` makes and
finishes it; ``finish_kernel`` finishes products that were made elsewhere, by cuBLAS or, each part
of a long depth by a program of its own, by ``split_kernel``.

No kernel adds to what another program writes: two runs are equal to the bit.
"""

from lossbench.kernels.language import jit, tl


@jit
def _product(
    z, row, column, first, last, depth,
    BLOCK: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """``z[row:row + BLOCK] @ z[column:column + BLOCK].T`` over features first to last."""
    i = row + tl.arange(0, BLOCK)
    j = column + tl.arange(0, BLOCK)
    k = first + tl.arange(0, STEP)
    left = z + i[:, None].to(tl.int64) * depth + k[None, :]
    right = z + j[None, :].to(tl.int64) * depth + k[:, None]
    product = tl.zeros((BLOCK, BLOCK), tl.float32)
    for _ in range(first, last, STEP):
        x = tl.load(left)
        y = tl.load(right)
        if UPCAST:  # the interpreter multiplies the raw bits of bf16
            x = x.to(tl.float32)
            y = y.to(tl.float32)
        product = tl.dot(x, y, product, input_precision=PRECISION)
        left += STEP
        right += STEP
    return product


@jit
def _place(program, tiles_down, tiles_across, GROUP: tl.constexpr):
    """Tile of a program: groups of columns ``GROUP`` tiles long, so that operands stay in L2."""
    in_group = GROUP * tiles_across
    first = program // in_group * GROUP
    size = tl.minimum(tiles_down - first, GROUP)
    return first + program % in_group % size, program % in_group // size


@jit
def _finish(
    product, other, top, left, tile, tile_down, tile_across, tiles_down, tiles_across,
    out, out_columns, g, g_mirror, g_other, g_other_mirror, width, renorm, lse, row_weights,
    batch, rows, p0, p1,
    ENTRY: tl.constexpr, KIND: tl.constexpr, EXCLUDE: tl.constexpr, GRADIENT: tl.constexpr,
    MIRROR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What a loss makes of a tile of products.

    ``KIND``:
        "sum": the sum of ``ENTRY`` over its pairs, and G, the derivative in the Gram.
        "cross": the sum of the products with those of another Gram, and ``p0`` G of both.
        "logsumexp": each row's and column's largest score and sum of exponentials.
        "softmax": G of a loss of the rows' logsumexps.
    """
    down = tile_down * BLOCK + tl.arange(0, BLOCK)
    across = tile_across * BLOCK + tl.arange(0, BLOCK)
    row = top + tile_down * BLOCK
    column = left + tile_across * BLOCK
    i = top + down
    j = left + across
    sample_i = i - tl.where(row >= rows, rows, 0)
    sample_j = j - tl.where(column >= rows, rows, 0)
    counts = (sample_i[:, None] < batch) & (sample_j[None, :] < batch)
    if EXCLUDE:
        counts &= sample_i[:, None] != sample_j[None, :]
    same_view = (row >= rows) == (column >= rows)
    if KIND == "cross":
        _store_sum(out + tile, product * other, counts, same_view & (row != column))
        if GRADIENT:
            _store(g, g_mirror, tl.where(counts, 2 * p0 * other, 0.0),
                   down, across, width, row != column, MIRROR)  # fmt: skip
            _store(g_other, g_other_mirror, tl.where(counts, 2 * p0 * product, 0.0),
                   down, across, width, row != column, MIRROR)  # fmt: skip
    else:
        of_row = tl.load(renorm + i)[:, None]
        of_column = tl.load(renorm + j)[None, :]
        product = product * of_row * of_column
    if KIND == "sum":
        # left out pairs are those whose product is 0: a mask of its own costs registers
        product = tl.where(counts, product, 0.0)
        h, slope = ENTRY(product, p0, p1)
        _store_sum(out + tile, h, counts, same_view & (row != column))
        # rho_ij and rho_ji are one product
        slope = slope * tl.where(same_view, 2.0, 1.0)
    if KIND == "logsumexp":
        score = tl.where(counts, product * p0, float("-inf"))
        size = tiles_down * tiles_across * BLOCK
        _store_logsumexp(out + down * tiles_across + tile_across, size, score, 1)
        # a tile on the diagonal has all pairs of its rows: its columns add nothing
        score = tl.where(row != column, score, float("-inf"))
        _store_logsumexp(out_columns + across * tiles_down + tile_down, size, score, 0)
    if KIND == "softmax":
        score = tl.where(counts, product * p0, float("-inf"))
        of_i = tl.exp(score - tl.load(lse + i)[:, None]) * tl.load(row_weights + i)[:, None]
        of_j = tl.exp(score - tl.load(lse + j)[None, :]) * tl.load(row_weights + j)[None, :]
        slope = of_i + of_j
    if GRADIENT and KIND != "cross":
        slope = slope * of_row * of_column
        _store(g, g_mirror, slope, down, across, width, row != column, MIRROR)


@jit
def _store_sum(out, h, counts, twice):
    """Write the sum of a tile, which stands for its mirror image too if ``twice``."""
    total = tl.sum(tl.sum(tl.where(counts, h, 0.0), axis=1))
    tl.store(out, total * tl.where(twice, 2.0, 1.0))


@jit
def _store_logsumexp(out, size, score, AXIS: tl.constexpr):
    """Write the largest score along an axis, and the sum of exponentials after ``size``."""
    largest = tl.max(score, axis=AXIS)
    shift = tl.where(largest == float("-inf"), 0.0, largest)
    tl.store(out, largest)
    tl.store(out + size, tl.sum(tl.exp(score - tl.expand_dims(shift, AXIS)), axis=AXIS))


@jit
def _store(g, g_mirror, slope, i, j, width, mirrored, MIRROR: tl.constexpr):
    """Write a tile of G, and its mirror image."""
    slope = slope.to(g.dtype.element_ty)
    tl.store(g + i[:, None].to(tl.int64) * width + j[None, :], slope)
    if MIRROR:
        if mirrored:
            tl.store(g_mirror + j[:, None].to(tl.int64) * width + i[None, :], tl.trans(slope))


@jit
def fused_kernel(
    z, out, out_columns, g, g_mirror, g_other, g_other_mirror, width, renorm, lse, row_weights,
    batch, rows, depth, top, left, tiles_down, tiles_across, p0, p1,
    ENTRY: tl.constexpr, KIND: tl.constexpr, EXCLUDE: tl.constexpr, GRADIENT: tl.constexpr,
    MIRROR: tl.constexpr, TRIANGULAR: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr,
    GROUP: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Make a tile and finish it while it is in registers."""
    tile = tl.program_id(0)
    tile_down, tile_across = _place(tile, tiles_down, tiles_across, GROUP)
    if TRIANGULAR:
        if tile_down > tile_across:
            return
    row = top + tile_down * BLOCK
    column = left + tile_across * BLOCK
    product = _product(z, row, column, 0, depth, depth, BLOCK, STEP, PRECISION, UPCAST)
    other = product
    if KIND == "cross":
        z_other = z + rows.to(tl.int64) * depth
        other = _product(z_other, row, column, 0, depth, depth, BLOCK, STEP, PRECISION, UPCAST)
    _finish(
        product, other, top, left, tile, tile_down, tile_across, tiles_down, tiles_across,
        out, out_columns, g, g_mirror, g_other, g_other_mirror, width, renorm, lse, row_weights,
        batch, rows, p0, p1, ENTRY, KIND, EXCLUDE, GRADIENT, MIRROR, BLOCK,
    )  # fmt: skip


@jit
def split_kernel(
    z, products, rows, depth, part, top, left, tiles_down, tiles_across,
    TRIANGULAR: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr,
    GROUP: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Part ``program_id(1)`` of the depth of a tile of operand ``program_id(2)``.

    Few tiles of a long depth fill a GPU so.
    """
    tile_down, tile_across = _place(tl.program_id(0), tiles_down, tiles_across, GROUP)
    if TRIANGULAR:
        if tile_down > tile_across:
            return
    first = tl.program_id(1) * part
    last = tl.minimum(first + part, depth)
    operand = tl.program_id(2)
    row = top + tile_down * BLOCK
    column = left + tile_across * BLOCK
    z += operand * rows.to(tl.int64) * depth
    product = _product(z, row, column, first, last, depth, BLOCK, STEP, PRECISION, UPCAST)
    i = tile_down * BLOCK + tl.arange(0, BLOCK)
    j = tile_across * BLOCK + tl.arange(0, BLOCK)
    size = (tiles_down * BLOCK).to(tl.int64) * tiles_across * BLOCK
    products += (operand * tl.num_programs(1) + tl.program_id(1)) * size
    tl.store(products + i[:, None].to(tl.int64) * (tiles_across * BLOCK) + j[None, :], product)


@jit
def finish_kernel(
    products, parts, out, out_columns, g, g_mirror, g_other, g_other_mirror, width, renorm, lse,
    row_weights, batch, rows, top, left, tiles_down, tiles_across, p0, p1,
    ENTRY: tl.constexpr, KIND: tl.constexpr, EXCLUDE: tl.constexpr, GRADIENT: tl.constexpr,
    MIRROR: tl.constexpr, TRIANGULAR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add up the parts of a tile of products, in their order, and finish it."""
    tile = tl.program_id(0)
    tile_down = tile // tiles_across
    tile_across = tile % tiles_across
    if TRIANGULAR:
        if tile_down > tile_across:
            return
    i = tile_down * BLOCK + tl.arange(0, BLOCK)
    j = tile_across * BLOCK + tl.arange(0, BLOCK)
    size = (tiles_down * BLOCK).to(tl.int64) * tiles_across * BLOCK
    place = products + i[:, None].to(tl.int64) * (tiles_across * BLOCK) + j[None, :]
    product = _sum_of_parts(place, parts, size, BLOCK)
    other = product
    if KIND == "cross":
        other = _sum_of_parts(place + parts * size, parts, size, BLOCK)
    _finish(
        product, other, top, left, tile, tile_down, tile_across, tiles_down, tiles_across,
        out, out_columns, g, g_mirror, g_other, g_other_mirror, width, renorm, lse, row_weights,
        batch, rows, p0, p1, ENTRY, KIND, EXCLUDE, GRADIENT, MIRROR, BLOCK,
    )  # fmt: skip


@jit
def _sum_of_parts(place, parts, size, BLOCK: tl.constexpr):
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for _ in range(parts):
        total += tl.load(place)
        place += size
    return total


@jit
def merge_kernel(
    found, largest, total, length, tiles, LENGTH: tl.constexpr, TILES: tl.constexpr
):  # fmt: skip
    """Merge what the tiles of a region say of each row into the rows' logsumexp so far."""
    i = tl.program_id(0) * LENGTH + tl.arange(0, LENGTH)
    inside = i < length
    most = tl.load(largest + i, mask=inside, other=float("-inf"))
    sum_ = tl.load(total + i, mask=inside, other=0.0)
    for start in range(0, tiles, TILES):
        j = start + tl.arange(0, TILES)
        mask = inside[:, None] & (j[None, :] < tiles)
        place = found + i[:, None].to(tl.int64) * tiles + j[None, :]
        those = tl.load(place, mask=mask, other=float("-inf"))
        sums = tl.load(place + length * tiles, mask=mask, other=0.0)
        new = tl.maximum(most, tl.max(those, axis=1))
        shift = tl.where(new == float("-inf"), 0.0, new)
        sum_ = sum_ * tl.exp(most - shift) + tl.sum(sums * tl.exp(those - shift[:, None]), axis=1)
        most = new
    tl.store(largest + i, most, mask=inside)
    tl.store(total + i, sum_, mask=inside)
