"""Batches that divide by zero somewhere: no loss may answer with NaN or infinity."""

import pytest
import torch
from embeddings import (
    DTYPES,
    degenerate_batches,
    eager,
    random_views,
    repeatable,
    value_and_gradients,
)
from hypothesis import given, strategies
from oracles import smi as smi_oracle

from lossbench import losses


@pytest.mark.parametrize("batch", degenerate_batches())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_finite(loss, dtype, batch):
    # VICReg's gradient grows with the cube of the scale, and fp16 ends at 65504
    large = 10 if dtype == torch.float16 else 1e3
    views = [view.to(dtype) for view in degenerate_batches(large)[batch]]
    value, gradients = value_and_gradients(loss, *views)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.fixture(scope="module", params=eager("smi"))
def smi(request):
    return losses.create("smi", request.param)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@repeatable
@given(
    constant=strategies.floats(-1e4, 1e4, width=16, allow_subnormal=False),
    dim=strategies.integers(8, 3000),
    seed=strategies.integers(0, 2**31),
)
def test_constant_row_correlates_with_nothing(smi, dtype, constant, dim, seed):
    """Its rho is 0 and its gradient exactly 0, although its mean is rounded."""
    a, b = [view.to(dtype) for view in random_views(4, dim, seed=seed, noise=1.0)]
    # a third of a half-precision number is representable in none of the dtypes
    a[1] = constant / 3
    value, gradients = value_and_gradients(smi, a, b)
    # zero is the one constant whose deviations the oracle computes without rounding
    a[1] = 0
    expected = smi_oracle(a.double(), b.double())
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=0)
    assert torch.equal(gradients[0][1], torch.zeros_like(a[1]))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_constant_rows_leave_the_others_their_gradient(smi, dtype):
    a, b = [view.to(dtype) for view in random_views(4, 9)]
    a[0] = 0.1
    _, (gradient, _) = value_and_gradients(smi, a, b)
    assert (gradient[0] == 0).all()
    assert (gradient[1:].abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize(
    "options", [{}, {"dependency": "correlation"}, {"reduction": "sum"}], ids=str
)
def test_all_rows_constant(smi, options):
    """No pair correlates, so no entry has a gradient whatever the options."""
    a, b = degenerate_batches()["constant_rows"]
    loss = losses.create("smi", smi.implementation, **options)
    _, gradients = value_and_gradients(loss, a, b)
    assert not any(gradient.any() for gradient in gradients)


def test_anti_aligned_views_are_aligned_for_mutual_information(smi):
    a, _ = random_views(6, 37)
    torch.testing.assert_close(smi(a, -a), smi(a, a), rtol=1e-9, atol=0)
    signed = losses.create("smi", smi.implementation, dependency="correlation", lambda_=0.0)
    assert signed(a, -a).item() == pytest.approx((1 + 1) ** 2, rel=1e-12)
    assert signed(a, a).item() == pytest.approx(0, abs=1e-25)
