"""What each loss must not notice, in fp64."""

import pytest
import torch
from embeddings import eager, repeatable, seeds, value_and_gradients, view_pairs
from hypothesis import given

from lossbench import losses

# NT-Xent is a difference of numbers of size 1 / T = 10, hence the absolute part.
CLOSE = {"rtol": 1e-9, "atol": 1e-12}
# Two features leave rows nothing but rho = +-1, where dI/drho = 1 / eps magnifies rounding by 1e6;
# SMI's gradient is 0 there.
GRADIENT_ATOL = 1e-6


def every_implementation(*names):
    return pytest.mark.parametrize(
        "loss",
        [
            pytest.param(losses.create(name, implementation), id=f"{name}-{implementation}")
            for name in names
            for implementation in eager(name)
        ],
    )


def assert_same(loss, views, changed):
    torch.testing.assert_close(loss(*changed), loss(*views), **CLOSE)


def scales(count, generator):
    """Positive factors from 1/20 to 20."""
    return 20 ** (2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1)


def shifts(count, generator):
    return 3 * torch.randn(count, generator=generator, dtype=torch.float64)


@repeatable
@given(views=view_pairs)
def test_view_swap(loss, views):
    assert_same(loss, views, views[::-1])


@repeatable
@given(views=view_pairs)
def test_view_swap_swaps_the_gradients(loss, views):
    gradients = value_and_gradients(loss, *views)[1]
    swapped = value_and_gradients(loss, *views[::-1])[1]
    torch.testing.assert_close(swapped[::-1], gradients, rtol=1e-9, atol=GRADIENT_ATOL)


@repeatable
@given(views=view_pairs, generator=seeds)
def test_sample_permutation(loss, views, generator):
    order = torch.randperm(len(views[0]), generator=generator)
    assert_same(loss, views, [view[order] for view in views])


@repeatable
@given(views=view_pairs, generator=seeds)
def test_feature_permutation(loss, views, generator):
    order = torch.randperm(views[0].shape[1], generator=generator)
    assert_same(loss, views, [view[:, order] for view in views])


@repeatable
@given(views=view_pairs)
def test_sign_of_everything(loss, views):
    assert_same(loss, views, [-view for view in views])


@every_implementation("smi", "nt_xent")
@repeatable
@given(views=view_pairs, generator=seeds)
def test_row_scaling(loss, views, generator):
    changed = [view * scales((len(view), 1), generator) for view in views]
    assert_same(loss, views, changed)


@every_implementation("smi")
@repeatable
@given(views=view_pairs, generator=seeds)
def test_row_shift(loss, views, generator):
    changed = [view + shifts((len(view), 1), generator) for view in views]
    assert_same(loss, views, changed)


@every_implementation("smi")
@repeatable
@given(views=view_pairs, generator=seeds)
def test_mutual_information_ignores_the_sign_of_a_row(loss, views, generator):
    signs = 2 * torch.randint(2, (len(views[0]), 1), generator=generator) - 1
    assert_same(loss, views, [views[0] * signs, views[1]])


@every_implementation("smi", "nt_xent")
@repeatable
@given(views=view_pairs)
def test_gradient_is_orthogonal_to_its_row(loss, views):
    """Euler: a function of degree 0 in each row has <gradient, row> = 0."""
    for view, gradient in zip(views, value_and_gradients(loss, *views)[1], strict=True):
        radial = (view * gradient).sum(dim=1)
        size = view.norm(dim=1) * gradient.norm(dim=1)
        assert (radial.abs() <= 1e-9 * size + GRADIENT_ATOL).all()


@every_implementation("smi")
@repeatable
@given(views=view_pairs)
def test_gradient_of_a_row_sums_to_zero(loss, views):
    for gradient in value_and_gradients(loss, *views)[1]:
        size = gradient.abs().sum(dim=1)
        assert (gradient.sum(dim=1).abs() <= 1e-9 * size + GRADIENT_ATOL).all()


@every_implementation("barlow_twins")
@repeatable
@given(views=view_pairs, generator=seeds)
def test_feature_shift(loss, views, generator):
    changed = [view + shifts(view.shape[1], generator) for view in views]
    assert_same(loss, views, changed)


@every_implementation("barlow_twins")
@repeatable
@given(views=view_pairs, generator=seeds)
def test_feature_scaling_without_eps(loss, views, generator):
    exact = losses.create(loss.name, loss.implementation, eps=1e-30)
    changed = [view * scales(view.shape[1], generator) for view in views]
    assert_same(exact, views, changed)


@every_implementation("barlow_twins")
@repeatable
@given(views=view_pairs, generator=seeds)
def test_scaling_with_eps_scaled_by_its_square(loss, views, generator):
    factor = scales(1, generator).item()
    scaled = losses.create(loss.name, loss.implementation, eps=1e-5 * factor**2)
    value = scaled(*[factor * view for view in views])
    torch.testing.assert_close(value, loss(*views), **CLOSE)


@every_implementation("vicreg")
@repeatable
@given(views=view_pairs, generator=seeds)
def test_shift_common_to_both_views(loss, views, generator):
    shift = shifts(views[0].shape[1], generator)
    assert_same(loss, views, [view + shift for view in views])


@every_implementation("nt_xent")
@repeatable
@given(views=view_pairs, generator=seeds)
def test_feature_rotation(loss, views, generator):
    dim = views[0].shape[1]
    gaussian = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(gaussian)
    assert_same(loss, views, [view @ rotation for view in views])


@repeatable
@given(views=view_pairs)
def test_terms_add_up(loss, views):
    terms = loss.terms(*views)
    assert len(terms) >= 2
    assert all(term.shape == () and term.dtype == torch.float64 for term in terms.values())
    total = sum(term.item() for term in terms.values())
    assert loss(*views).item() == pytest.approx(total, rel=1e-12, abs=1e-13)


@repeatable
@given(views=view_pairs)
def test_views_are_left_alone(loss, views):
    before = [view.clone() for view in views]
    loss(*views)
    assert all(torch.equal(view, old) for view, old in zip(views, before, strict=True))
