"""Functions of one correlation, to the digits of fp32 where the formula as written loses them."""

import numpy as np
import pytest
import torch

from lossbench.kernels.language import jit, tl
from lossbench.kernels.maths import log1p_of_quotient, mutual_information

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
def logarithm_kernel(s, out, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(out + i, log1p_of_quotient(tl.load(s + i)))


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
    switch = np.float32(0.7) + np.arange(-BLOCK // 2, BLOCK // 2) * np.spacing(np.float32(0.7))
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
    sizes = np.concatenate([np.geomspace(1e-30, 1 / 3, BLOCK), np.linspace(0.01, 1 / 3, BLOCK)])
    s = np.concatenate([sizes, -sizes]).astype(np.float32)
    on_device = torch.tensor(s, device=device)
    found = torch.empty_like(on_device)
    logarithm_kernel[(len(s) // BLOCK,)](on_device, found, block=BLOCK)
    expected = 2 * np.arctanh(s.astype(np.float64))
    assert np.max(np.abs(found.cpu().double().numpy() / expected - 1)) < 5e-7
