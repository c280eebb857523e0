"""Precision against the fp64 oracles, on the inputs as the loss gets them (already rounded)."""

import pytest
import torch
from embeddings import DTYPES, random_views, relative_error, value_and_gradients
from oracles import ORACLES


def truth(name, views):
    return value_and_gradients(ORACLES[name], *[view.double() for view in views])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("batch", "dim"), [(2, 7), (16, 33), (64, 128), (8, 1000)])
def test_value(loss, dtype, batch, dim):
    views = [view.to(dtype) for view in random_views(batch, dim, noise=1.0, seed=batch)]
    value = loss(*views)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert relative_error(value, truth(loss.name, views)[0]) < 1e-4


# A gradient is rounded to the views' dtype once, at the end: half an ulp of that dtype.
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float16, 1e-3), (torch.bfloat16, 4e-3), (torch.float32, 1e-4), (torch.float64, 1e-9)],
    ids=str,
)
def test_gradient(loss, dtype, tolerance):
    views = [view.to(dtype) for view in random_views(16, 33, noise=1.0)]
    _, gradients = value_and_gradients(loss, *views)
    _, expected = truth(loss.name, views)
    for gradient, true in zip(gradients, expected, strict=True):
        assert gradient.dtype == dtype
        assert relative_error(gradient, true) < tolerance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_changes_nothing(loss, dtype, lower):
    views = [view.to(dtype) for view in random_views(16, 33)]
    plain, plain_gradients = value_and_gradients(loss, *views)

    def under_autocast(*leaves):
        with torch.autocast("cpu", dtype=lower):
            assert (views[0].float() @ views[1].float().T).dtype == lower
            return loss(*leaves)

    value, gradients = value_and_gradients(under_autocast, *views)
    assert value.dtype == torch.float32
    assert torch.equal(value, plain)
    assert all(map(torch.equal, gradients, plain_gradients))


def test_terms_are_wide_under_autocast(loss):
    views = [view.bfloat16() for view in random_views(16, 33)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss.terms(*views)
    assert {term.dtype for term in terms.values()} == {torch.float32}


@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
def test_views_need_not_be_contiguous(loss, layout):
    a, b = random_views(12, 18)
    view = {
        "transposed": lambda z: z.T.contiguous().T,
        "strided": lambda z: torch.stack([z, -z], dim=2)[..., 0],
        "expanded": lambda z: z[:1].expand(12, -1),
    }[layout]
    strided = [view(a), b]
    assert not strided[0].is_contiguous()
    dense = [z.contiguous() for z in strided]
    torch.testing.assert_close(loss(*strided), loss(*dense), rtol=1e-12, atol=1e-12)
