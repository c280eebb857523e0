"""Kernels whose work is known by hand."""

from lossbench.kernels.language import jit, tl


@jit
def exponentials(x, out, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(out + i, tl.exp2(tl.load(x + i)))


@jit
def chain(x, out, a, b, SIZE: tl.constexpr, LENGTH: tl.constexpr):
    i = tl.arange(0, SIZE)
    value = tl.load(x + i)
    for _ in tl.static_range(LENGTH):
        value = value * a + b
    tl.store(out + i, value)


@jit
def products(z, out, depth, BLOCK: tl.constexpr, STEP: tl.constexpr):
    i = tl.arange(0, BLOCK)
    k = tl.arange(0, STEP)
    product = tl.zeros((BLOCK, BLOCK), tl.float32)
    for first in range(0, depth, STEP):
        x = tl.load(z + i[:, None] * depth + first + k[None, :])
        y = tl.load(z + i[None, :] * depth + first + k[:, None])
        product = tl.dot(x, y, product, input_precision="ieee")
    tl.store(out + i[:, None] * BLOCK + i[None, :], product)


@jit
def described_products(z, out, depth, BLOCK: tl.constexpr, STEP: tl.constexpr):
    i = tl.arange(0, BLOCK)
    product = tl.zeros((BLOCK, BLOCK), tl.float32)
    for first in range(0, depth, STEP):
        x = z.load([0, first])
        product = tl.dot(x, x.T, product)
    tl.store(out + i[:, None] * BLOCK + i[None, :], product)


@jit
def persistent_products(
    z, out, rows, depth, tiles, BLOCK: tl.constexpr, STEP: tl.constexpr, FLATTEN: tl.constexpr
):
    i = tl.arange(0, BLOCK)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=FLATTEN):
        product = tl.zeros((BLOCK, BLOCK), tl.float32)
        for first in range(0, depth, STEP):
            x = z.load([tile * BLOCK, first])
            product = tl.dot(x, x.T, product)
        place = out + (tile * BLOCK + i[:, None]) * BLOCK + i[None, :]
        if FLATTEN:  # Triton does not flatten loops with branches
            tl.store(place, tl.exp2(product))
        else:
            if tile * BLOCK + BLOCK <= rows:
                tl.store(place, tl.exp2(product))
            else:
                inside = tile * BLOCK + i[:, None] < rows
                tl.store(place, tl.exp2(tl.where(inside, product, 0.0)), mask=inside)
