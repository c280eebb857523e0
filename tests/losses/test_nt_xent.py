import functools
import math

import pytest
import torch
from embeddings import eager, random_views, value_and_gradients
from oracles import nt_xent as cross_entropy
from pytorch_metric_learning.losses import NTXentLoss

from lossbench import losses

TEMPERATURES = [0.05, 0.1, 0.5, 3.0]
SHAPES = [(2, 2), (2, 33), (16, 5), (24, 64)]


@pytest.fixture(scope="module", params=eager("nt_xent"))
def nt_xent(request):
    return functools.partial(losses.create, "nt_xent", request.param)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("batch", "dim"), SHAPES)
def test_against_cross_entropy(nt_xent, temperature, batch, dim):
    views = random_views(batch, dim, seed=dim, noise=1.0)
    value, gradients = value_and_gradients(nt_xent(temperature=temperature), *views)
    oracle = functools.partial(cross_entropy, temperature=temperature)
    truth, true_gradients = value_and_gradients(oracle, *views)
    torch.testing.assert_close(value, truth, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(gradients, true_gradients, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("batch", "dim"), SHAPES)
def test_against_pytorch_metric_learning(nt_xent, temperature, batch, dim):
    oracle = NTXentLoss(temperature=temperature)
    labels = torch.arange(batch).repeat(2)
    views = random_views(batch, dim, seed=dim + 1, noise=1.0)
    value, gradients = value_and_gradients(nt_xent(temperature=temperature), *views)
    truth, true_gradients = value_and_gradients(
        lambda a, b: oracle(torch.cat([a, b]), labels), *views
    )
    torch.testing.assert_close(value, truth, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(gradients, true_gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_two_orthogonal_rows(nt_xent, temperature):
    """Views equal: the positive has similarity 1, both negatives 0.

    L = -1/T + ln(e^{1/T} + 2) = ln(1 + 2 e^{-1/T})
    """
    rows = torch.tensor([[2, 0], [0, 5]], dtype=torch.float64)
    expected = math.log1p(2 * math.exp(-1 / temperature))
    value = nt_xent(temperature=temperature)(rows, rows)
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_anti_aligned_views(nt_xent, temperature):
    """z_b = -z_a, orthogonal rows: positive -1, both negatives 0. L = 1/T + ln(e^{-1/T} + 2)."""
    rows = torch.eye(2, dtype=torch.float64)
    expected = 1 / temperature + math.log(math.exp(-1 / temperature) + 2)
    value = nt_xent(temperature=temperature)(rows, -rows)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_negatives_of_the_same_view_count(nt_xent):
    """z_a = +-e1, z_b = +-e2: the positive and one negative are at 0, the other negative at -1.

    L = -0 + ln(1 + 1 + e^{-1/T}); without the blocks aa and bb it would be ln 2.
    """
    a = torch.tensor([[1, 0], [-1, 0]], dtype=torch.float64)
    expected = math.log(2 + math.exp(-1 / 0.5))
    assert nt_xent(temperature=0.5)(a, a.flip(1)).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("batch", [2, 5, 16])
def test_collapsed_batch(nt_xent, batch):
    """All 2N - 1 candidates of an anchor are alike: L = ln(2N - 1) at any temperature."""
    z = random_views(1, 8)[0].expand(batch, -1)
    for temperature in TEMPERATURES:
        value = nt_xent(temperature=temperature)(z, 3 * z)
        assert value.item() == pytest.approx(math.log(2 * batch - 1), rel=1e-12)


def test_tiny_temperature_does_not_overflow(nt_xent):
    """e^{1/T} overflows fp64 below T = 0.0014; aligned positives leave a loss of 0."""
    rows = torch.eye(3, dtype=torch.float64)
    assert nt_xent(temperature=1e-4)(rows, rows).item() == pytest.approx(0, abs=1e-11)
    value = nt_xent(temperature=1e-4)(rows, -rows)
    assert value.item() == pytest.approx(1e4 + math.log(4), rel=1e-12)


def test_zero_row_is_orthogonal_to_everything(nt_xent):
    """Rows e1 and 0, views equal, T = 1: the zero row's candidates are all at 0, ln 3.

    The other anchor sees its positive at 1 and two at 0: ln(1 + 2/e).
    """
    rows = torch.tensor([[1, 0], [0, 0]], dtype=torch.float64)
    value, gradients = value_and_gradients(nt_xent(temperature=1.0), rows, rows)
    assert value.item() == pytest.approx((math.log(3) + math.log(1 + 2 / math.e)) / 2, rel=1e-12)
    for gradient in gradients:
        assert torch.equal(gradient[1], torch.zeros(2, dtype=torch.float64))
