"""Where fp32 loses its digits, against the fp64 truth on the same inputs."""

import functools
import math

import pytest
import torch
from embeddings import eager, random_views, relative_error, value_and_gradients
from oracles import nt_xent, smi

from lossbench import losses

SMI = eager("smi")


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
@pytest.mark.parametrize("mean", [1e2, 1e3, 1e5])
def test_smi_of_rows_far_from_the_origin(implementation, mean):
    """A mean of up to 1e5 deviations is rounded, yet such a row is not constant."""
    views = [(mean + view).float() for view in random_views(8, 300, noise=1.0)]
    value = losses.create("smi", implementation)(*views)
    assert relative_error(value, smi(*[view.double() for view in views])) < 1e-4


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


@pytest.mark.parametrize("implementation", SMI)
@pytest.mark.parametrize("dim", [16, 37, 256, 2048])
def test_smi_of_duplicates(implementation, dim):
    """All rho are 1. fp32 knows 1 - rho^2 to about 8 ulp of 1, so I is between its two ends."""
    row = random_views(1, dim, seed=dim)[0].float()
    batch = row * torch.linspace(1, 3, 8)[:, None]
    off = losses.create("smi", implementation, lambda_=1.0).terms(batch, batch)["off_diagonal"]
    ceiling = math.log(1e-6) ** 2 / 4
    floor = math.log(1e-6 + 8 * torch.finfo(torch.float32).eps) ** 2 / 4
    assert floor < off.item() < 1.01 * ceiling


@pytest.mark.parametrize("implementation", eager("nt_xent"))
@pytest.mark.parametrize(("batch", "noise", "temperature"), [(16, 0.5, 0.1), (8, 0.3, 0.1)])
def test_nt_xent_of_aligned_views(implementation, batch, noise, temperature):
    """The loss is the small difference of similarities of size 1 / T: cross-entropy keeps it."""
    views = [view.float() for view in random_views(batch, 512, noise=noise, seed=batch)]
    oracle = functools.partial(nt_xent, temperature=temperature)
    truth = oracle(*[view.double() for view in views])
    assert relative_error(oracle(*views), truth) < 1e-4
    value = losses.create("nt_xent", implementation, temperature=temperature)(*views)
    assert relative_error(value, truth) < 1e-4
