import functools

import pytest
import torch
from embeddings import eager, random_views, value_and_gradients
from oracles import barlow_twins as official

from lossbench import losses

DEFAULT_EPS = 1e-5


@pytest.fixture(scope="module", params=eager("barlow_twins"))
def barlow_twins(request):
    return functools.partial(losses.create, "barlow_twins", request.param)


@pytest.mark.parametrize("options", [{}, {"lambda_": 0.5}, {"lambda_": 0.0}, {"eps": 0.1}], ids=str)
@pytest.mark.parametrize(("batch", "dim"), [(2, 2), (2, 33), (64, 8), (16, 48), (5, 1)])
def test_against_official_code(barlow_twins, options, batch, dim):
    views = random_views(batch, dim, seed=dim)
    value, gradients = value_and_gradients(barlow_twins(**options), *views)
    truth, true_gradients = value_and_gradients(functools.partial(official, **options), *views)
    torch.testing.assert_close(value, truth, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradients, true_gradients, rtol=1e-8, atol=1e-12)


def test_uncorrelated_features_leave_only_eps(barlow_twins):
    """Columns of +-1 have variance 1, so both views scale by k = 1 / sqrt(1 + eps).

    Orthogonal columns, views equal: C = k^2 I and L = D (1 - k^2)^2.
    """
    columns = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    k2 = 1 / (1 + DEFAULT_EPS)
    terms = barlow_twins().terms(columns, columns)
    assert terms["on_diagonal"].item() == pytest.approx(2 * (1 - k2) ** 2, rel=1e-9)
    assert terms["off_diagonal"].item() == pytest.approx(0, abs=1e-25)


def test_swapped_features(barlow_twins):
    """The other view holds the columns in the other order: C = k^2 [[0, 1], [1, 0]].

    L = 2 (1 - 0)^2 + lambda 2 k^4
    """
    columns = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    k2 = 1 / (1 + DEFAULT_EPS)
    terms = barlow_twins(lambda_=0.25).terms(columns, columns.flip(1))
    assert terms["on_diagonal"].item() == pytest.approx(2, rel=1e-12)
    assert terms["off_diagonal"].item() == pytest.approx(0.25 * 2 * k2**2, rel=1e-12)


def test_redundant_features(barlow_twins):
    """Both features equal: every entry of C is k^2. L = 2 (1 - k^2)^2 + lambda 2 k^4."""
    z = torch.tensor([[1, 1], [-1, -1]], dtype=torch.float64)
    k2 = 1 / (1 + DEFAULT_EPS)
    expected = 2 * (1 - k2) ** 2 + 0.0051 * 2 * k2**2
    assert barlow_twins()(z, z).item() == pytest.approx(expected, rel=1e-12)


def test_opposite_views(barlow_twins):
    """C = -k^2 on the diagonal of one feature: L = (1 + k^2)^2."""
    z = torch.tensor([[1], [-1]], dtype=torch.float64)
    expected = (1 + 1 / (1 + DEFAULT_EPS)) ** 2
    assert barlow_twins()(z, -z).item() == pytest.approx(expected, rel=1e-12)


def test_variance_is_biased(barlow_twins):
    """Two samples +-x have biased variance x^2 and unbiased 2 x^2.

    With x = 1 and eps = 1: biased gives C = 1 / 2 and L = 1/4; unbiased would give C = 1 / 3.
    """
    z = torch.tensor([[1], [-1]], dtype=torch.float64)
    assert barlow_twins(eps=1.0)(z, z).item() == pytest.approx(0.25, rel=1e-12)


def test_collapsed_batch(barlow_twins):
    """Standardised features are all 0, so C = 0: L = D."""
    z = random_views(1, 7)[0].expand(5, -1)
    assert barlow_twins()(z, z).item() == pytest.approx(7, rel=1e-10)
