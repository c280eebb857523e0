"""Analytic gradients against finite differences in fp64."""

import itertools

import pytest
import torch
from embeddings import eager, random_views

from lossbench import losses

SMI_OPTIONS = list(
    itertools.product(
        eager("smi"),
        ("mean", "sum"),
        ("mutual_information", "squared_correlation", "correlation"),
        (2, 3),
    )
)


def leaves(*shape, **options):
    return [view.requires_grad_() for view in random_views(*shape, **options)]


@pytest.mark.parametrize(("batch", "dim"), [(2, 3), (4, 5), (5, 3)])
def test_gradcheck(loss, batch, dim):
    assert torch.autograd.gradcheck(loss, leaves(batch, dim, seed=batch))


@pytest.mark.parametrize(("implementation", "reduction", "dependency", "views"), SMI_OPTIONS)
def test_gradcheck_smi_options(implementation, reduction, dependency, views):
    loss = losses.create("smi", implementation, reduction=reduction, dependency=dependency)
    assert torch.autograd.gradcheck(loss, leaves(3, 6, count=views, seed=1))


def test_gradcheck_of_each_term(loss):
    a, b = leaves(4, 3, seed=2)
    assert torch.autograd.gradcheck(lambda *views: tuple(loss.terms(*views).values()), (a, b))


def test_hinge_is_active_on_one_side_only():
    """Features of deviation 0.5 are pushed apart and features of deviation 2 are left alone."""
    a, b = random_views(64, 4, seed=3)
    scale = torch.tensor([0.5, 0.5, 2.0, 2.0], dtype=torch.float64)
    a = a / a.std(dim=0) * scale
    a.requires_grad_()
    losses.create("vicreg").terms(a, b)["variance"].backward()
    assert (a.grad[:, :2] != 0).all()
    assert (a.grad[:, 2:] == 0).all()


@pytest.mark.parametrize("index", [0, 1])
def test_one_view_detached(loss, index):
    """The other branch stopped (as a momentum encoder's is): the same gradient for this one."""
    both = leaves(4, 5)
    one = [view.detach() for view in both]
    one[index].requires_grad_()
    expected = torch.autograd.grad(loss(*both), both[index])[0]
    assert torch.equal(torch.autograd.grad(loss(*one), one[index])[0], expected)


def test_no_graph_without_a_gradient(loss):
    views = leaves(4, 5)
    with torch.no_grad():
        value = loss(*views)
    assert value.grad_fn is None
    assert torch.equal(value, loss(*views))
