"""Functions of one correlation, to the digits of fp32 where the formula as written loses them."""

import numpy as np
import pytest
import torch

from lossbench.kernels.language import jit, tl
from lossbench.kernels.maths import (
    half_log1p,
    is_near,
    mutual_information,
    squared_information_near,
)

EPS = float(np.float32(1e-6))
BLOCK = 256


@jit
def information_kernel(rho, out, slope, eps, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    value = tl.load(rho + i)
    f, inverse = mutual_information(value, 1 - tl.abs(value), eps)
    tl.store(out + i, f)
    tl.store(slope + i, inverse)


@jit
def logarithm_kernel(u, out, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(out + i, half_log1p(tl.load(u + i)))


@jit
def near_kernel(x, factor, out, slope, weight, eps, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    product = tl.load(x + i)
    h, of_x = squared_information_near(product, product * factor, weight, eps, 0.0)
    tl.store(out + i, h)
    tl.store(slope + i, of_x)


@jit
def is_near_kernel(largest, out, eps):
    tl.store(out, is_near(tl.load(largest), eps, 0.0).to(tl.int32))


def information(rho, eps, device):
    """f and 1 / (1 - rho^2 + eps) by the kernels' function, in fp64 as numpy's."""
    rho = torch.tensor(rho, device=device)
    f, inverse = torch.empty_like(rho), torch.empty_like(rho)
    information_kernel[(len(rho) // BLOCK,)](rho, f, inverse, eps, block=BLOCK)
    return f.cpu().double().numpy(), inverse.cpu().double().numpy()


def truth(rho, eps):
    """The same in fp64; log1p keeps the digits of a small rho there."""
    rho = rho.astype(np.float64)
    return -np.log1p(eps - rho**2) / 2, 1 / (1 - rho**2 + eps)


def correlations(most):
    """Small ones, large ones, and all next to where the kernels change the formula."""
    small = np.geomspace(1e-6, most, 2 * BLOCK)
    large = np.linspace(0.5, most, BLOCK)
    switch = np.float32(0.4) + np.arange(-BLOCK // 2, BLOCK // 2) * np.spacing(np.float32(0.4))
    return np.concatenate([small, large, switch]).astype(np.float32)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("eps", [0.0, EPS])
def test_information_has_all_digits(eps, sign, device):
    rho = sign * correlations(most=0.99)
    f, inverse = information(rho, eps, device)
    expected, slope = truth(rho, eps)
    # f passes through 0 where rho^2 = eps: there its digits are those of eps
    assert np.max(np.abs(f - expected) / (np.abs(expected) + eps)) < 3e-6
    assert np.max(np.abs(inverse / slope - 1)) < 3e-6


def test_information_of_aligned_rows(device):
    """To the end: at a correlation of 1 it is that of eps alone, and above it stays."""
    rho = correlations(most=1.0)
    rho[:2] = 1.0, 1.0 + np.spacing(np.float32(1.0))
    f, _ = information(rho, EPS, device)
    expected, _ = truth(np.minimum(rho, 1), EPS)
    assert np.max(np.abs(f - expected) / (np.abs(expected) + EPS)) < 3e-6


def test_formula_as_written_loses_digits():
    rho = torch.tensor(correlations(most=0.99))
    naive = -torch.log(1 - rho * rho + EPS) / 2
    expected, _ = truth(rho.numpy(), EPS)
    lost = np.abs(naive.double().numpy() - expected) / (np.abs(expected) + EPS)
    assert lost[rho < 0.02].max() > 1e-3
    assert lost[rho < 0.005].max() > 1e-2


def test_logarithm_near_one(device):
    below, above = np.linspace(-0.16, 0, BLOCK), np.linspace(0, 1 / 16, BLOCK)
    small = np.geomspace(1e-30, 0.06, BLOCK)
    u = np.concatenate([below, above[1:], [1e-35], small, -small]).astype(np.float32)
    u = u[u != 0]
    u = np.resize(u, 4 * BLOCK)
    on_device = torch.tensor(u, device=device)
    found = torch.empty_like(on_device)
    logarithm_kernel[(len(u) // BLOCK,)](on_device, found, block=BLOCK)
    expected = -np.log1p(u.astype(np.float64)) / 2
    assert np.max(np.abs(found.cpu().double().numpy() / expected - 1)) < 3e-7


@pytest.mark.parametrize("eps", [0.0, EPS, 1 / 16])
@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_square_of_small_correlations_and_its_slope_in_the_product(weight, eps, device):
    c = 2.0**-5  # a product of rows is rho / c
    rho = np.geomspace(1e-5, 0.4, BLOCK).astype(np.float32)
    x = torch.tensor(rho / np.float32(c), device=device)
    h, slope = torch.empty_like(x), torch.empty_like(x)
    near_kernel[(1,)](x, c * c, h, slope, weight, eps, block=BLOCK)
    f, inverse = truth(rho, np.float64(eps))
    of_f = weight * 2 * rho.astype(np.float64) * inverse * c
    digits = np.abs(f) + eps  # f passes through 0 where rho^2 = eps
    assert np.max(np.abs(h.cpu().double().numpy() - f * f) / digits**2) < 2e-6
    assert np.max(np.abs(slope.cpu().double().numpy() - of_f * f) / (of_f * digits)) < 2e-6


@pytest.mark.parametrize(
    ("largest", "eps", "near"),
    [(0.39, EPS, 1), (0.39, 1 / 16, 1), (0.41, 0.0, 0), (0.0, 0.07, 0), (0.3, 1.0, 0)],
)
def test_small_correlations_are_those_of_the_polynomial(largest, eps, near, device):
    """It holds for -0.16 <= eps - rho^2 <= 1/16 of each rho, from 0 to the largest."""
    assert near == (eps - largest**2 >= -0.16 and eps <= 1 / 16)
    out = torch.empty(1, dtype=torch.int32, device=device)
    is_near_kernel[(1,)](torch.tensor([largest], device=device), out, eps)
    assert out.item() == near
