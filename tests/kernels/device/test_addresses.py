"""Entries beyond 2^31 of a tensor: memory that is never touched costs nothing."""

import pytest
import torch
from tilings import small_tiles

from lossbench.kernels import engine
from lossbench.kernels.configs import STRATEGIES
from lossbench.kernels.gram import Epilogue, Gram
from lossbench.kernels.language import jit, tl  # noqa: F401 - what jit looks for
from lossbench.kernels.maths import no_part
from lossbench.kernels.normalise import rows_kernel
from lossbench.kernels.plan import Region, layout
from lossbench.kernels.rows import FACTS, PAIR_FACTS, Normalisation, make_rows

DEPTH = 64
FAR = 2**31 // DEPTH
"""The row that begins at entry 2^31."""
ROWS = 32


@jit
def square(rho, p0, p1):
    return rho * rho, 2 * rho


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tiles_of_far_rows(strategy, device):
    length = FAR + ROWS
    z = torch.empty(length, DEPTH, dtype=torch.bfloat16, device=device)
    renorm = torch.empty(length, device=device)
    generator = torch.Generator().manual_seed(0)
    z[FAR:] = torch.randn(ROWS, DEPTH, generator=generator)
    renorm[FAR:] = 1.0
    gram = Region(FAR, FAR, ROWS, ROWS)
    g = torch.empty(ROWS, ROWS, device=device)
    with small_tiles():
        rows = Gram(z, renorm, layout((length, DEPTH), views=1), strategy)
        targets = engine._Targets([g], gram, *4 * [renorm])
        total = engine._run(rows, Epilogue(entry=square), gram, targets)
    products = z[FAR:].double() @ z[FAR:].double().T
    products.fill_diagonal_(0.0)
    torch.testing.assert_close(total.double().sum(), products.square().sum(), rtol=1e-5, atol=0)
    torch.testing.assert_close(g.double(), 4 * products, rtol=1e-5, atol=1e-4)


def test_second_view_begins_far(device):
    """The first program of ``make_rows``, where each view is padded to 2^25 rows."""
    generator = torch.Generator().manual_seed(0)
    z_a, z_b = torch.randn(2, ROWS, DEPTH, generator=generator).to(device)
    z = torch.empty(FAR + ROWS, DEPTH, device=device)
    facts = torch.empty(len(FACTS), 2 * FAR, device=device)
    pairs = torch.empty(len(PAIR_FACTS), ROWS, device=device)
    rows_kernel[(1,)](
        z_a, z_b, z, facts, pairs, ROWS, FAR, DEPTH, DEPTH, 1.0, 0.0, 0.0, 0.0,
        POSITIVE=no_part, CENTRE=True, CLIP=False, TF32=False, ROWS=ROWS, CHUNK=DEPTH,
    )  # fmt: skip
    with small_tiles():
        how = Normalisation(no_part, centre=True)
        near = make_rows(z_a, z_b, how, layout((ROWS, DEPTH)), "ieee")
    assert torch.equal(torch.cat([z[:ROWS], z[FAR:]]), near.z)
    assert torch.equal(torch.cat([facts[:, :ROWS], facts[:, FAR : FAR + ROWS]], 1), near.facts)
    assert torch.equal(pairs, near.pairs)
