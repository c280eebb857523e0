"""Kernels that make tiles of the symmetric Gram of stacked rows, and hand them to a loss.

Rows are stacked: view a at 0, view b at ``rows``, each padded. A launch covers tiles of a region of
the Gram of ``region_down`` x ``region_across`` entries, which begins at (``top``, ``left``). In a
triangular region, whose rows are its columns, each pair is taken once: entries right of the
diagonal, and only tiles that have some.

A tile is made in one of two ways, and finished by the same function (``finish.py``):
``fused_kernel`` makes and finishes it; ``finish_kernel`` finishes products that were made
elsewhere, by cuBLAS or, each part of a long depth by a program of its own, by ``split_kernel``.

No kernel adds to what another program writes: two runs are equal to the bit.
"""

from lossbench.kernels.finish import finish
from lossbench.kernels.language import jit, tl


@jit
def _place(
    tile, region_down, TRIANGULAR: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """First row and column of a tile in its region; tiles are numbered down the columns."""
    if TRIANGULAR:
        # column c has ``ratio`` (c + 1) tiles; those before it have ``ratio`` c (c + 1) / 2
        ratio: tl.constexpr = COLUMNS // ROWS
        triangle = tile // ratio
        across = ((tl.sqrt((8 * triangle + 1).to(tl.float32)) - 1) / 2).to(tl.int32)
        across -= (across * (across + 1) // 2 > triangle).to(tl.int32)  # a root that was rounded
        across += ((across + 1) * (across + 2) // 2 <= triangle).to(tl.int32)
        down = tile - ratio * (across * (across + 1) // 2)
    else:
        tiles_down = region_down // ROWS
        down = tile % tiles_down
        across = tile // tiles_down
    return down * ROWS, across * COLUMNS


@jit
def _product(
    z_rows, z_columns, row, column, first, last, depth,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
    DESCRIBED: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """``z[row:row + ROWS] @ z[column:column + COLUMNS].T`` over features first to last.

    ``DESCRIBED``: both operands are tensor descriptors, whose tiles the hardware copies, instead
    of pointers.
    """
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
    if DESCRIBED:
        for k in range(first, last, STEP):
            x = z_rows.load([row, k])
            y = z_columns.load([column, k]).T
            if UPCAST:  # the interpreter multiplies the raw bits of bf16
                x = x.to(tl.float32)
                y = y.to(tl.float32)
            product = tl.dot(x, y, product, input_precision=PRECISION)
    else:
        i = row + tl.arange(0, ROWS)
        j = column + tl.arange(0, COLUMNS)
        k = first + tl.arange(0, STEP)
        z_rows += i[:, None].to(tl.int64) * depth + k[None, :]
        z_columns += j[None, :].to(tl.int64) * depth + k[:, None]
        for _ in range(first, last, STEP):
            x = tl.load(z_rows)
            y = tl.load(z_columns)
            if UPCAST:
                x = x.to(tl.float32)
                y = y.to(tl.float32)
            product = tl.dot(x, y, product, input_precision=PRECISION)
            z_rows += STEP
            z_columns += STEP
    return product


@jit
def fused_kernel(
    z_rows, z_columns, depth, out, g, g_mirror, g_other, g_other_mirror, width, of_rows,
    of_columns, renorm, lse, row_weights, p0, p1, top, left, region_down, region_across, rows,
    batch,
    ENTRY: tl.constexpr, NEAR: tl.constexpr, NEAR_HOLDS: tl.constexpr, KIND: tl.constexpr,
    EXCLUDE: tl.constexpr, GRADIENT: tl.constexpr, MIRROR: tl.constexpr, SUMS: tl.constexpr,
    TRIANGULAR: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STRIP: tl.constexpr,
    STEP: tl.constexpr, PRECISION: tl.constexpr, DESCRIBED: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Make a tile and finish it while it is in registers."""
    tile = tl.program_id(0)
    down, across = _place(tile, region_down, TRIANGULAR, ROWS, COLUMNS)
    row = top + down
    column = left + across
    product = _product(
        z_rows, z_columns, row, column, 0, depth, depth,
        ROWS, COLUMNS, STEP, PRECISION, DESCRIBED, UPCAST,
    )  # fmt: skip
    other = product
    if KIND == "cross":
        other = _product(
            z_rows, z_columns, rows + row, rows + column, 0, depth, depth,
            ROWS, COLUMNS, STEP, PRECISION, DESCRIBED, UPCAST,
        )  # fmt: skip
    total = finish(
        product, other, down, across,
        (top, left, region_down, region_across, rows, batch),
        (renorm, lse, row_weights, p0, p1),
        (g, g_mirror, g_other, g_other_mirror, width, of_rows, of_columns),
        ENTRY, NEAR, NEAR_HOLDS, KIND, EXCLUDE, GRADIENT, MIRROR, SUMS, TRIANGULAR, STRIP,
    )  # fmt: skip
    if (KIND == "sum") | (KIND == "cross"):
        tl.store(out + tile, tl.sum(total))


@jit
def split_kernel(
    z_rows, z_columns, depth, part, products, first_tile, rows, top, left, region_down,
    TRIANGULAR: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr,
    PRECISION: tl.constexpr, DESCRIBED: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Part ``program_id(1)`` of the depth of a tile of operand ``program_id(2)``.

    Few tiles of a long depth fill a GPU so. Parts of tiles lie one after another.
    """
    tile = tl.program_id(0)
    down, across = _place(first_tile + tile, region_down, TRIANGULAR, ROWS, COLUMNS)
    first = tl.program_id(1) * part
    last = tl.minimum(first + part, depth)
    operand = tl.program_id(2)
    product = _product(
        z_rows, z_columns, operand * rows + top + down, operand * rows + left + across, first, last,
        depth, ROWS, COLUMNS, STEP, PRECISION, DESCRIBED, UPCAST,
    )  # fmt: skip
    number = (operand * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tile
    products += number.to(tl.int64) * (ROWS * COLUMNS)
    i = tl.arange(0, ROWS)
    j = tl.arange(0, COLUMNS)
    tl.store(products + i[:, None] * COLUMNS + j[None, :], product)


@jit
def finish_kernel(
    products, parts, first_tile, tiles, out, g, g_mirror, g_other, g_other_mirror, width, of_rows,
    of_columns, renorm, lse, row_weights, p0, p1, top, left, region_down, region_across, rows,
    batch,
    ENTRY: tl.constexpr, NEAR: tl.constexpr, NEAR_HOLDS: tl.constexpr, KIND: tl.constexpr,
    EXCLUDE: tl.constexpr, GRADIENT: tl.constexpr, MIRROR: tl.constexpr, SUMS: tl.constexpr,
    TRIANGULAR: tl.constexpr, SPLIT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    STRIP: tl.constexpr,
):  # fmt: skip
    """Add up the parts of a block of products, in their order, and finish it.

    The products are a matrix of the region, or with ``SPLIT`` tiles, of which a block is a piece.
    """
    program = tl.program_id(0)
    if SPLIT:
        pieces: tl.constexpr = COLUMNS // STRIP
        tile = program // (ROWS // STRIP * pieces)
        piece = program % (ROWS // STRIP * pieces)
        piece_down = piece // pieces * STRIP
        piece_across = piece % pieces * STRIP
        down, across = _place(first_tile + tile, region_down, TRIANGULAR, ROWS, COLUMNS)
        down += piece_down
        across += piece_across
        stride = COLUMNS
        size = tiles.to(tl.int64) * (ROWS * COLUMNS)
        products += tile.to(tl.int64) * (ROWS * COLUMNS) + piece_down * COLUMNS + piece_across
    else:
        down, across = _place(program, region_down, TRIANGULAR, STRIP, STRIP)
        stride = region_across
        size = region_down.to(tl.int64) * region_across
        products += down.to(tl.int64) * region_across + across
    i = tl.arange(0, STRIP)
    place = products + i[:, None] * stride + i[None, :]
    product = _sum_of_parts(place, parts, size, STRIP)
    other = product
    if KIND == "cross":
        other = _sum_of_parts(place + parts * size, parts, size, STRIP)
    total = finish(
        product, other, down, across,
        (top, left, region_down, region_across, rows, batch),
        (renorm, lse, row_weights, p0, p1),
        (g, g_mirror, g_other, g_other_mirror, width, of_rows, of_columns),
        ENTRY, NEAR, NEAR_HOLDS, KIND, EXCLUDE, GRADIENT, MIRROR, SUMS, TRIANGULAR, STRIP,
    )  # fmt: skip
    if (KIND == "sum") | (KIND == "cross"):
        tl.store(out + program, tl.sum(total))


@jit
def _sum_of_parts(place, parts, size, STRIP: tl.constexpr):
    total = tl.load(place)
    for _ in range(1, parts):
        place += size
        total += tl.load(place)
    return total


@jit
def merge_kernel(
    found, largest, total, length, parts, ROWS: tl.constexpr, PARTS: tl.constexpr
):  # fmt: skip
    """Merge what the strips of a region say of each row into the rows' logsumexp so far, base 2."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = i < length
    most = tl.load(largest + i, mask=inside, other=float("-inf"))
    sum_ = tl.load(total + i, mask=inside, other=0.0)
    for start in range(0, parts, PARTS):
        j = start + tl.arange(0, PARTS)
        mask = inside[:, None] & (j[None, :] < parts)
        place = found + j[None, :].to(tl.int64) * length + i[:, None]
        those = tl.load(place, mask=mask, other=float("-inf"))
        sums = tl.load(place + length * parts, mask=mask, other=0.0)
        new = tl.maximum(most, tl.max(those, axis=1))
        shift = tl.where(new == float("-inf"), 0.0, new)
        sum_ = sum_ * tl.exp2(most - shift)
        sum_ += tl.sum(sums * tl.exp2(those - shift[:, None]), axis=1)
        most = new
    tl.store(largest + i, most, mask=inside)
    tl.store(total + i, sum_, mask=inside)
