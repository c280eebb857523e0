"""What near-identical views and rows need: the digits of 1 - rho, and correlations of at most 1."""

import pytest
import torch
from embeddings import relative_error, value_and_gradients
from tilings import small_tiles

from lossbench import losses


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_near_identical_views_are_finite_and_right(dtype, device):
    """At 1 - rho = 5e-7 a correlation of bf16 rows exceeds 1 + eps in half of the pairs."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(24, 200, generator=generator)
    b = a + 1e-3 * torch.randn(24, 200, generator=generator)
    views = [a.to(dtype), b.to(dtype)]
    expected, gradients = value_and_gradients(
        losses.create("smi"), *[view.double() for view in views]
    )
    with small_tiles():
        loss = losses.create("smi", "triton")
        found, own = value_and_gradients(loss, *[view.to(device) for view in views])
    assert relative_error(found.cpu(), expected) < 1e-3
    for gradient, truth in zip(own, gradients, strict=True):
        assert relative_error(gradient.cpu(), truth) < 2e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_duplicate_rows_correlate_by_one(dtype, device):
    """Off the diagonal: the squared information of a correlation of 1 is that of eps alone."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(8, 300, generator=generator).to(dtype)
    views = [torch.cat([rows, rows]).to(device)] * 2
    truth = losses.create("smi")(*[view.double() for view in views])
    with small_tiles():
        found = losses.create("smi", "triton")(*views)
    # tensor cores cut sums off where the interpreter rounds: correlations of 1 come out lower
    assert relative_error(found.cpu(), truth.cpu()) < (6e-2 if device == "cuda" else 2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("constant", [0.0, 0.1, -7.7, 1e3])
def test_constant_rows_have_no_gradient(dtype, constant, device):
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, 20, 19, generator=generator)
    a[[0, 3, 19]] = constant
    with small_tiles():
        views = [view.to(device, dtype) for view in (a, b)]
        _, (gradient, other) = value_and_gradients(losses.create("smi", "triton"), *views)
    constant_rows = torch.zeros(20, dtype=torch.bool)
    constant_rows[[0, 3, 19]] = True
    assert torch.equal((gradient == 0).all(dim=1).cpu(), constant_rows)
    assert other.isfinite().all()
    assert other.any(dim=1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_long_rows_fit_in_the_operands(dtype, device):
    """Rows that are shortened to a length that is large itself."""
    generator = torch.Generator().manual_seed(3)
    size = 1e4 if dtype == torch.bfloat16 else 1e2
    views = [(size * torch.randn(9, 300, generator=generator)).to(dtype) for _ in "ab"]
    truth, gradients = value_and_gradients(
        losses.create("spectral_contrastive", mu=1e12), *[view.double() for view in views]
    )
    with small_tiles():
        loss = losses.create("spectral_contrastive", "triton", mu=1e12)
        found, own = value_and_gradients(loss, *[view.to(device).float() for view in views])
        narrow = loss(*[view.to(device) for view in views])
    assert relative_error(found.cpu(), truth) < 1e-4
    assert relative_error(own[0].cpu(), gradients[0]) < 1e-4
    assert relative_error(narrow.cpu(), truth) < 1e-2
