import functools
import itertools
import math

import numpy as np
import pytest
import torch
from embeddings import eager, orthonormal_rows, random_views

from lossbench import losses


@pytest.fixture(scope="module", params=eager("smi"))
def smi(request):
    return functools.partial(losses.create, "smi", request.param)


def mutual_information(rho, eps=1e-6):
    return -0.5 * math.log(1 - rho**2 + eps)


def numpy_smi(views, target=1.0, lambda_=10.0, eps=1e-6, reduction="mean", dependency=None):
    """One entry at a time, each correlation by itself."""
    depend = dependency or (lambda rho: mutual_information(rho, eps))
    views = [view.numpy() for view in views]
    n = len(views[0])

    def block(u, v, different):
        return [
            depend(np.corrcoef(u[i], v[j])[0, 1])
            for i, j in itertools.product(range(n), repeat=2)
            if (i != j) == different
        ]

    reduce = np.mean if reduction == "mean" else np.sum
    on = [
        reduce([(target - each) ** 2 for each in block(u, v, different=False)])
        for u, v in itertools.combinations(views, 2)
    ]
    off = [
        reduce([each**2 for each in block(u, v, different=True)])
        for u, v in itertools.combinations_with_replacement(views, 2)
    ]
    return reduce(on), lambda_ * reduce(off)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target": 2.5},
        {"target": -1.0},
        {"target": 0.0},
        {"lambda_": 0.3},
        {"lambda_": 0.0},
        {"eps": 1e-2},
        {"eps": 2.0},
        {"reduction": "sum"},
        {"reduction": "sum", "target": 0.5, "lambda_": 0.1, "eps": 1e-3},
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [2, 3, 4])
def test_against_corrcoef(smi, options, count):
    views = random_views(6, 9, count=count)
    on, off = numpy_smi(views, **options)
    terms = smi(**options).terms(*views)
    assert terms["on_diagonal"].item() == pytest.approx(on, rel=1e-10)
    assert terms["off_diagonal"].item() == pytest.approx(off, rel=1e-10)
    assert smi(**options)(*views).item() == pytest.approx(on + off, rel=1e-10)


@pytest.mark.parametrize(
    ("dependency", "depend"),
    [("squared_correlation", lambda rho: rho**2), ("correlation", lambda rho: rho)],
)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_dependency_ablation_against_corrcoef(smi, dependency, depend, reduction):
    views = random_views(5, 7, seed=1)
    expected = sum(numpy_smi(views, reduction=reduction, dependency=depend))
    value = smi(dependency=dependency, reduction=reduction)(*views)
    assert value.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("rho", [0.0, 0.3, -0.6, 0.99, 1 - 1e-6, 1.0, -1.0])
def test_rho_known_by_construction(smi, rho):
    """Rows e1, e2 against rho e1 + s e3, rho e2 + s e3 with s^2 = 1 - rho^2.

    Positives correlate by rho. Different samples: 0 in ab and aa, s^2 in bb.
        on  = (1 - I(rho))^2
        off = (I(0)^2 + I(0)^2 + I(s^2)^2) / 3
    """
    e1, e2, e3 = orthonormal_rows()
    s = math.sqrt((1 - rho) * (1 + rho))
    a, b = torch.stack([e1, e2]), torch.stack([rho * e1 + s * e3, rho * e2 + s * e3])
    on = (1 - mutual_information(rho)) ** 2
    off = (2 * mutual_information(0) ** 2 + mutual_information(s**2) ** 2) / 3
    # the scale and the mean of a row do not matter
    terms = smi().terms(3 * a + 7, b / 2 - 1)
    assert terms["on_diagonal"].item() == pytest.approx(on, rel=1e-7)
    assert terms["off_diagonal"].item() == pytest.approx(10 * off, rel=1e-7, abs=1e-11)


def test_target_reached_without_redundancy_leaves_nothing(smi):
    """I(rho) = 1 nat at rho^2 = 1 + eps - e^-2; all different samples are at I(0)."""
    e1, e2, e3 = orthonormal_rows()
    rho = math.sqrt(1 + 1e-6 - math.exp(-2))
    s = math.sqrt(1 - rho**2)
    # s e3 and -s e3 would anticorrelate; a row of its own for each sample keeps bb at 0
    e4 = e1 * e2 * 8**0.5
    a, b = torch.stack([e1, e2]), torch.stack([rho * e1 + s * e3, rho * e2 + s * e4])
    assert smi()(a, b).item() == pytest.approx(10 * mutual_information(0) ** 2, abs=1e-14)


def test_duplicates_reach_the_ceiling(smi):
    """All rho are 1, so I = -1/2 ln eps = 6.9078 everywhere: (1 - I)^2 + 10 I^2."""
    row = random_views(1, 16)[0]
    batch = row.expand(4, -1)
    ceiling = -0.5 * math.log(1e-6)
    expected = (1 - ceiling) ** 2 + 10 * ceiling**2
    assert smi()(batch, batch).item() == pytest.approx(expected, rel=1e-8)


def test_sum_counts_every_entry_and_block(smi):
    """N positives; 3 blocks of N (N - 1) entries, against their averages."""
    views = random_views(6, 8)
    mean, total = smi().terms(*views), smi(reduction="sum").terms(*views)
    assert total["on_diagonal"].item() == pytest.approx(6 * mean["on_diagonal"].item())
    assert total["off_diagonal"].item() == pytest.approx(90 * mean["off_diagonal"].item())


def test_one_feature_correlates_with_nothing(smi):
    """D = 1: every row is constant, rho = 0 and I(0) = -1/2 ln(1 + eps)."""
    a, b = random_views(3, 1)
    nothing = mutual_information(0)
    expected = (1 - nothing) ** 2 + 10 * nothing**2
    assert smi()(a, b).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_order_of_three_views_does_not_matter(smi, order):
    views = random_views(5, 8, count=3)
    permuted = [views[index] for index in order]
    assert smi()(*permuted).item() == pytest.approx(smi()(*views).item(), rel=1e-12)
