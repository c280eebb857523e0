import math

import pytest
import torch
from embeddings import random_views, value_and_gradients
from oracles import spectral_contrastive

from lossbench import losses


@pytest.mark.parametrize("mu", [0.5, 1.0, 40.0, 1e4])
@pytest.mark.parametrize("per_mu", [False, True])
def test_against_the_official_code(mu, per_mu):
    """40 shortens some rows, 1e4 none."""
    views = random_views(9, 30)
    loss = losses.create("spectral_contrastive", mu=mu, per_mu=per_mu)
    found, gradients = value_and_gradients(loss, *views)
    expected, others = value_and_gradients(
        lambda a, b: spectral_contrastive(a, b, mu=mu, per_mu=per_mu), *views
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients, others, rtol=1e-9, atol=1e-12)


def test_orthonormal_rows():
    """Positives at 1, negatives at 0."""
    rows = torch.eye(5, 8, dtype=torch.float64)
    assert losses.create("spectral_contrastive")(rows, rows) == -2


def test_collapse_is_no_minimum():
    """All rows one: -2 + 1, against -2 of rows that are told apart."""
    row = torch.ones(1, 4, dtype=torch.float64).expand(6, -1)
    assert losses.create("spectral_contrastive")(row, row).item() == pytest.approx(-1)


def test_short_rows_keep_their_length():
    views = [0.1 * torch.eye(3, dtype=torch.float64)] * 2
    terms = losses.create("spectral_contrastive").terms(*views)
    assert terms["positives"].item() == pytest.approx(-2 * 0.01)


def test_per_mu_divides():
    views = random_views(7, 12)
    whole = losses.create("spectral_contrastive", mu=4.0)(*views)
    part = losses.create("spectral_contrastive", mu=4.0, per_mu=True)(*views)
    assert part.item() == pytest.approx(whole.item() / 4)


@pytest.mark.parametrize(
    "setting", [{"mu": 0.0}, {"mu": math.nan}, {"mu": "1"}, {"per_mu": 1}, {"per_mu": "yes"}]
)
def test_bad_hyperparameters(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        losses.create("spectral_contrastive", **setting)
