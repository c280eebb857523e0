import functools

import pytest
import torch
from embeddings import eager, random_views, value_and_gradients
from oracles import vicreg as official
from pytorch_metric_learning.losses import VICRegLoss

from lossbench import losses

SHAPES = [(2, 2), (2, 33), (64, 8), (16, 48), (5, 1)]


@pytest.fixture(scope="module", params=eager("vicreg"))
def vicreg(request):
    return functools.partial(losses.create, "vicreg", request.param)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"invariance": 3.0, "variance": 0.5, "covariance": 7.0},
        {"invariance": 0.0, "variance": 0.0},
        {"eps": 0.3},
    ],
    ids=str,
)
@pytest.mark.parametrize(("batch", "dim"), SHAPES)
def test_against_official_code(vicreg, options, batch, dim):
    views = random_views(batch, dim, seed=dim)
    value, gradients = value_and_gradients(vicreg(**options), *views)
    truth, true_gradients = value_and_gradients(functools.partial(official, **options), *views)
    # One feature has no covariance: a Gram form leaves the rounding of the variance it subtracts.
    torch.testing.assert_close(value, truth, rtol=1e-10, atol=1e-15)
    torch.testing.assert_close(gradients, true_gradients, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("batch", "dim"), SHAPES)
def test_against_pytorch_metric_learning(vicreg, batch, dim):
    oracle = VICRegLoss(invariance_lambda=3, variance_mu=11, covariance_v=2, eps=1e-3)
    loss = vicreg(invariance=3.0, variance=11.0, covariance=2.0, eps=1e-3)
    views = random_views(batch, dim, seed=dim + 1)
    value, gradients = value_and_gradients(loss, *views)
    truth, true_gradients = value_and_gradients(lambda a, b: oracle(a, ref_emb=b), *views)
    torch.testing.assert_close(value, truth, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradients, true_gradients, rtol=1e-10, atol=1e-13)


def test_opposite_views(vicreg):
    """z_b = -z_a, two samples of two equal features +-1.

    invariance = 2^2 = 4; unbiased variance = 2, above 1, so the hinge is 0;
    Cov = [[2, 2], [2, 2]], so each view adds (2^2 + 2^2) / 2 = 4.
    """
    a = torch.tensor([[1, 1], [-1, -1]], dtype=torch.float64)
    terms = {name: term.item() for name, term in vicreg().terms(a, -a).items()}
    assert terms == pytest.approx({"invariance": 100, "variance": 0, "covariance": 8})


def test_hinge(vicreg):
    """Features +-x have unbiased variance 2 x^2: 0.18 at x = 0.3, 0.08 at x = 0.2.

    With eps = 0.01 the deviations of a are sqrt(0.19) and 0.3, those of b (twice a)
    sqrt(0.73) and sqrt(0.33).
    """
    a = torch.tensor([[0.3, 0.2], [-0.3, -0.2]], dtype=torch.float64)
    hinge_a = (2 - 0.19**0.5 - 0.3) / 2
    hinge_b = (2 - 0.73**0.5 - 0.33**0.5) / 2
    variance = vicreg(eps=0.01).terms(a, 2 * a)["variance"]
    assert variance.item() == pytest.approx(25 * (hinge_a + hinge_b) / 2, rel=1e-12)


def test_uncorrelated_features_of_large_variance_cost_nothing(vicreg):
    columns = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    assert vicreg()(columns, columns).item() == pytest.approx(0, abs=1e-30)


def test_collapsed_batch(vicreg):
    """Only the hinge is left: 25 (1 - sqrt(1e-4)) = 24.75."""
    z = random_views(1, 7)[0].expand(5, -1)
    assert vicreg()(z, z).item() == pytest.approx(24.75, rel=1e-12)


def test_views_that_differ_by_a_shift(vicreg):
    """Shifting one view by c in every feature adds 25 c^2 and nothing else."""
    a, _ = random_views(6, 4)
    expected = vicreg()(a, a).item() + 25 * 0.3**2
    assert vicreg()(a, a + 0.3).item() == pytest.approx(expected, rel=1e-12)
