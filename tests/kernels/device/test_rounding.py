"""Rows as operands of TF32 products: tensor cores cut off what they do not read."""

import numpy as np
import pytest
import torch
from embeddings import relative_error, value_and_gradients
from tilings import small_tiles

from lossbench import losses
from lossbench.kernels.maths import no_part
from lossbench.kernels.plan import layout
from lossbench.kernels.rows import Normalisation, make_rows

CUT = 1 << 13
"""Binary digits of fp32 that tf32 has not."""


def made(views, precision):
    batch, dim = views[0].shape
    with small_tiles():
        return make_rows(
            *views, Normalisation(no_part, radius=1e6), layout((batch, dim)), precision
        )


def nearest_tf32(x):
    """By fp64: 11 binary digits, ties to even."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.rint(np.ldexp(mantissa, 11)), exponent - 11)


@pytest.mark.parametrize("seed", range(3))
def test_operands_are_the_nearest_that_tf32_has(seed, device):
    rows = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(seed))
    rows[0, 0, :4] = torch.tensor([0.0, -0.0, 1.0 + 2.0**-11, 1.0 + 3 * 2.0**-11])  # ties
    z = made(rows.to(device), "tf32").z.cpu()
    assert torch.equal(z[:3, :64].double(), torch.from_numpy(nearest_tf32(rows[0].numpy())))
    assert not (z.view(torch.int32) % CUT).any()
    assert torch.equal(made(rows.to(device), "ieee").z.cpu()[:3, :64], rows[0])


def test_what_is_no_number_stays_none(device):
    rows = torch.ones(2, 3, 64)
    rows[0, 1, 5] = float("nan")
    z = made(rows.to(device), "tf32").z.cpu()
    assert z[1].isnan().any()
    assert z[[0, 2]].isfinite().all()


def test_what_rounding_does_to_a_rows_length_is_undone(device):
    """Correlations of rows with themselves are 1: rounded rows, times renorm, have length 1."""
    views = torch.randn(2, 5, 300, generator=torch.Generator().manual_seed(0)).to(device)
    with small_tiles():
        rows = make_rows(*views, Normalisation(no_part), layout((5, 300)), "tf32")
    lengths = (rows.z.double() * rows.renorm.double()[:, None]).square().sum(dim=1)
    real = torch.cat([lengths[:5], lengths[len(lengths) // 2 :][:5]])
    torch.testing.assert_close(real, torch.ones_like(real), rtol=1e-6, atol=0)


def test_value_and_gradient_are_those_of_tf32(device):
    views = torch.randn(2, 40, 100, generator=torch.Generator().manual_seed(1))
    for name in ("smi", "nt_xent"):
        truth, gradients = value_and_gradients(losses.create(name), *views.double())
        with small_tiles():
            loss = losses.create(name, "triton", precision="tf32")
            value, own = value_and_gradients(loss, *views.to(device))
        assert relative_error(value.cpu(), truth) < 1e-4
        for gradient, expected in zip(own, gradients, strict=True):
            assert relative_error(gradient.cpu(), expected) < 1e-3
