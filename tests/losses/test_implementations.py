"""Every implementation computes what the reference computes: value, terms and gradients."""

import pytest
import torch
from embeddings import (
    degenerate_batches,
    eager,
    random_views,
    repeatable,
    small_blocks,
    value_and_gradients,
    workspace,
)
from hypothesis import given, settings, strategies
from rounding import assert_close_to, outcome, permitted_errors

from lossbench import losses

DTYPES = [torch.float64, torch.float32]
FAST = {name: [each for each in eager(name) if each != "reference"] for name in losses.names()}


@strategies.composite
def tilings(draw, size):
    """Sides of tiles that leave a rest; no more than 12 x 12 of them, to be quick."""
    return draw(strategies.integers(1 + size // 12, 40))


@strategies.composite
def batches(draw):
    """2 to 70 samples of 1 to 130 features, at times with a sample that stands there twice."""
    shape = draw(strategies.integers(2, 70)), draw(strategies.integers(1, 130))
    noise = draw(strategies.sampled_from([0.05, 0.5, 2.0]))
    views = random_views(*shape, 3, draw(strategies.integers(0, 2**31)), noise)
    if shape[0] > 2 and draw(strategies.booleans()):
        views = [torch.cat([view[:-1], view[:1]]) for view in views]
    return views, draw(tilings(max(shape)))


cached_elements = strategies.sampled_from([1, 100, 1000, 2**18])
"""Elements of a block of rows; the last takes the whole batch."""


def outcomes(name, views, side, cached, **hyperparameters):
    """Of each implementation with code of its own but the reference, cut into small tiles."""
    with small_blocks(side, cached):
        for each in FAST[name]:
            dtype = views[0].dtype
            tiles = {"workspace_bytes": workspace(name, side, dtype)} if each == "chunked" else {}
            loss = losses.create(name, each, **tiles, **hyperparameters)
            yield outcome(loss, views)


def assert_all_agree(name, views, side, cached=2**18, **hyperparameters):
    reference = losses.create(name, **hyperparameters)
    truth, permitted = permitted_errors(reference, views)
    for found in outcomes(name, views, side, cached, **hyperparameters):
        assert_close_to(truth, permitted, found)
    chosen = losses.create(name, "auto", **hyperparameters)
    assert_close_to(truth, permitted, outcome(chosen, views))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", losses.names())
@repeatable
@given(batch=batches(), cached=cached_elements)
def test_against_the_reference(name, dtype, batch, cached):
    views, side = batch
    assert_all_agree(name, [view.to(dtype) for view in views[:2]], side, cached)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dependency", ["mutual_information", "squared_correlation", "correlation"])
@settings(repeatable, max_examples=12)
@given(
    batch=batches(),
    cached=cached_elements,
    count=strategies.integers(2, 3),
    dtype=strategies.sampled_from(DTYPES),
)
def test_smi_options_against_the_reference(dependency, reduction, batch, cached, count, dtype):
    views, side = batch
    views = [view.to(dtype) for view in views[:count]]
    assert_all_agree("smi", views, side, cached, dependency=dependency, reduction=reduction)


@pytest.mark.parametrize("temperature", [0.02, 1.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nt_xent_temperatures_against_the_reference(temperature, dtype):
    """0.02 puts the terms far apart: of some only the largest exponential is left."""
    views = [view.to(dtype) for view in random_views(23, 40, noise=1.0)]
    assert_all_agree("nt_xent", views, 7, temperature=temperature)


# The reference's gram and C at once: more samples than features, fewer, and as many.
@pytest.mark.parametrize(("batch", "dim"), [(200, 17), (17, 200), (33, 33)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", losses.names())
def test_rule_is_strict(name, dtype, batch, dim):
    """On ordinary batches the permitted error is hardly more than the tolerance."""
    views = [view.to(dtype) for view in random_views(batch, dim, noise=1.0)]
    truth, permitted = permitted_errors(losses.create(name), views)
    limit = 1.1e-10 if dtype == torch.float64 else 1e-4
    for each, expected in truth.items():
        assert permitted[each] <= limit * torch.linalg.vector_norm(expected).item()
    assert_all_agree(name, views, 8)


@pytest.mark.parametrize("batch", degenerate_batches())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", losses.names())
def test_degenerate_batches_against_the_reference(name, dtype, batch):
    """Constant and zero rows, duplicates, collapse: finite here as there, and the same."""
    views = [view.to(dtype) for view in degenerate_batches()[batch]]
    assert_all_agree(name, views, 4, cached=40)


@pytest.mark.parametrize("implementation", FAST["smi"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("constant", [0.0, 0.1, -7.7, 1e6])
@pytest.mark.parametrize("count", [2, 3])
def test_constant_rows_have_no_gradient_in_any_tile(implementation, dtype, constant, count):
    views = [view.to(dtype) for view in random_views(11, 19, count)]
    for row in (0, 3, 10):  # the first and last tile of 4, and the end of one
        views[0][row] = constant
    options = {"workspace_bytes": workspace("smi", 4, dtype)} if implementation == "chunked" else {}
    with small_blocks(4, cached_elements=40):
        loss = losses.create("smi", implementation, **options)
        _, (gradient, *others) = value_and_gradients(loss, *views)
    constant_rows = torch.zeros(11, dtype=torch.bool)
    constant_rows[[0, 3, 10]] = True
    assert torch.equal((gradient == 0).all(dim=1), constant_rows)
    assert all(other.isfinite().all() and other.any(dim=1).all() for other in others)
