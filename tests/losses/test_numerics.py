"""Precision against the fp64 oracles, on the inputs as the loss gets them (already rounded)."""

import losses
import pytest
import torch
from embeddings import DTYPES, random_views, value_and_gradients
from oracles import ORACLES, smi

SMI = losses.spec("smi").implementations


def truth(name, views):
    return value_and_gradients(ORACLES[name], *[view.double() for view in views])


def relative_error(value, expected):
    error = torch.linalg.vector_norm(value.double() - expected.double())
    return (error / torch.linalg.vector_norm(expected.double())).item()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("batch", "dim"), [(2, 7), (16, 33), (64, 128), (8, 1000)])
def test_value(loss, dtype, batch, dim):
    views = [view.to(dtype) for view in random_views(batch, dim, noise=1.0, seed=batch)]
    value = loss(*views)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert relative_error(value, truth(loss.name, views)[0]) < 1e-4


# A gradient is rounded to the views' dtype once, at the end: half an ulp of that dtype.
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float16, 1e-3), (torch.bfloat16, 4e-3), (torch.float32, 1e-4), (torch.float64, 1e-9)],
    ids=str,
)
def test_gradient(loss, dtype, tolerance):
    views = [view.to(dtype) for view in random_views(16, 33, noise=1.0)]
    _, gradients = value_and_gradients(loss, *views)
    _, expected = truth(loss.name, views)
    for gradient, true in zip(gradients, expected, strict=True):
        assert gradient.dtype == dtype
        assert relative_error(gradient, true) < tolerance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_changes_nothing(loss, dtype, lower):
    views = [view.to(dtype) for view in random_views(16, 33)]
    plain, plain_gradients = value_and_gradients(loss, *views)
    with torch.autocast("cpu", dtype=lower):
        value, gradients = value_and_gradients(loss, *views)
        assert torch.is_autocast_enabled("cpu")
    assert value.dtype == torch.float32
    assert torch.equal(value, plain)
    assert all(map(torch.equal, gradients, plain_gradients))


def test_terms_are_wide_under_autocast(loss):
    views = [view.bfloat16() for view in random_views(16, 33)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss.terms(*views)
    assert {term.dtype for term in terms.values()} == {torch.float32}


@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
def test_views_need_not_be_contiguous(loss, layout):
    a, b = random_views(12, 18)
    view = {
        "transposed": lambda z: z.T.contiguous().T,
        "strided": lambda z: torch.stack([z, -z], dim=2)[..., 0],
        "expanded": lambda z: z[:1].expand(12, -1),
    }[layout]
    strided = [view(a), b]
    assert not strided[0].is_contiguous()
    dense = [z.contiguous() for z in strided]
    torch.testing.assert_close(loss(*strided), loss(*dense), rtol=1e-12, atol=1e-12)


def correlated_rows(rho, dim=512, seed=0):
    """fp32 rows whose positives correlate by ``rho[i]``, of assorted means and scales."""
    batch = len(rho)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(2 * batch, dim, generator=generator, dtype=torch.float64)
    basis = basis - basis.mean(dim=1, keepdim=True)
    basis = torch.linalg.qr(basis.T)[0].T
    rho = rho[:, None]
    a, b = basis[:batch], rho * basis[:batch] + (1 - rho**2).sqrt() * basis[batch:]
    scale = torch.logspace(-1, 1, batch, dtype=torch.float64)[:, None]
    return (a * scale + 0.01).float(), (b / scale - 0.02).float()


@pytest.mark.parametrize("implementation", SMI)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("gap", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_smi_of_aligned_views(implementation, sign, gap):
    """rho from 0.99 to 1 - 1e-6, where 1 - rho^2 loses its digits in fp32."""
    loss = losses.create("smi", implementation, lambda_=0.0)
    views = correlated_rows(sign * torch.full((8,), 1 - gap, dtype=torch.float64))
    rho = torch.corrcoef(torch.cat(views).double())[:8, 8:].diagonal()
    assert (1 - rho.abs()).mean().item() == pytest.approx(gap, rel=0.05)
    value, gradients = value_and_gradients(loss, *views)
    expected, true_gradients = value_and_gradients(
        lambda a, b: smi(a, b, lambda_=0.0), *[view.double() for view in views]
    )
    assert relative_error(value, expected) < 1e-3
    for gradient, true in zip(gradients, true_gradients, strict=True):
        assert relative_error(gradient, true) < 1e-3


@pytest.mark.parametrize("implementation", SMI)
@pytest.mark.parametrize("dim", [1024, 16384, 131072])
def test_smi_of_nearly_uncorrelated_rows(implementation, dim):
    """rho near 1 / sqrt(D): I is near rho^2 / 2, which 1 - rho^2 rounds away in fp32."""
    views = [view.float() for view in random_views(16, dim, seed=dim, noise=1.0)]
    loss = losses.create("smi", implementation, lambda_=1.0)
    off = loss.terms(*views)["off_diagonal"]
    wide = [view.double() for view in views]
    on_and_off, on = smi(*wide, lambda_=1.0), smi(*wide, lambda_=0.0)
    assert relative_error(off, on_and_off - on) < 1e-4
