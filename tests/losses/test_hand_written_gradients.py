"""What autograd does for the reference, and ``gram`` and ``chunked`` must do themselves."""

import contextlib
import copy
import pickle

import pytest
import torch
from embeddings import (
    eager,
    random_views,
    small_blocks,
    value_and_gradients,
    value_and_gradients_checkpointed,
    workspace,
)
from torch.utils._python_dispatch import TorchDispatchMode

from lossbench import losses
from lossbench.losses.devices import as_if_on

HAND_WRITTEN = [(n, each) for n in losses.names() for each in eager(n) if each != "reference"]
PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_}


@pytest.fixture(autouse=True)
def ragged_tiles():
    """Several tiles of ``gram`` and several blocks of rows, on batches of ten."""
    with small_blocks(4, cached_elements=100):
        yield


def create(name, implementation, dtype=torch.float32):
    tiles = {"workspace_bytes": workspace(name, 4, dtype)} if implementation == "chunked" else {}
    return losses.create(name, implementation, **tiles)


@pytest.fixture(params=HAND_WRITTEN, ids="-".join)
def fast(request):
    return create(*request.param)


def leaves(dtype=torch.float32):
    return [view.to(dtype).requires_grad_() for view in random_views(10, 15)]


def test_second_derivative_is_refused(fast):
    views = leaves()
    with pytest.raises(NotImplementedError, match=r"second derivative.*implementation='reference'"):
        torch.autograd.grad(fast(*views), views, create_graph=True)


@pytest.mark.parametrize("name", losses.names())
def test_second_derivative_of_the_reference(name):
    views = [view.requires_grad_() for view in random_views(3, 5, noise=1.0)]
    assert torch.autograd.gradgradcheck(losses.create(name), views)


@pytest.mark.parametrize(("name", "implementation"), HAND_WRITTEN)
def test_gradcheck_in_tiles(name, implementation):
    views = [view.requires_grad_() for view in random_views(6, 5, noise=1.0)]
    loss = create(name, implementation, torch.float64)
    assert torch.autograd.gradcheck(lambda *all_: tuple(loss.terms(*all_).values()), views)


@pytest.mark.parametrize("name", [name for name, way in HAND_WRITTEN if way == "gram"])
def test_tiles_that_grow_with_the_batch_on_a_gpu_compute_the_same(name, monkeypatch):
    monkeypatch.setattr("lossbench.losses.tiles.GRAM_STEP", 2)
    views = random_views(53, 15)  # tiles of 8, the last of 5
    with as_if_on("cuda"):
        found = value_and_gradients(losses.create(name, "gram"), *views)
    torch.testing.assert_close(found, value_and_gradients(losses.create(name), *views))


def test_backward_twice(fast):
    """The first pass does not overwrite what the second needs."""
    views = leaves()
    value = fast(*views)
    first = torch.autograd.grad(value, views, retain_graph=True)
    second = torch.autograd.grad(value, views)
    assert all(map(torch.equal, first, second))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(value, views)


def test_gradient_is_linear_in_what_comes_from_above(fast):
    views = leaves(torch.float64)
    plain = torch.autograd.grad(fast(*views), views)
    scaled = torch.autograd.grad(-2.5 * fast(*views), views)
    torch.testing.assert_close(scaled, tuple(-2.5 * each for each in plain), rtol=1e-10, atol=1e-13)


def test_inputs_are_left_alone(fast):
    views = leaves()
    before = [view.detach().clone() for view in views]
    fast(*views).backward()
    with torch.no_grad():
        fast(*views)
    assert all(map(torch.equal, views, before))


def test_input_changed_after_the_forward_pass(fast):
    """Either the gradient is of what was seen, or autograd refuses: never silently of another."""
    views = leaves()
    expected = torch.autograd.grad(fast(*views), views)
    value = fast(*views)
    with torch.no_grad():
        for view in views:
            view.mul_(2)
    with contextlib.suppress(RuntimeError):  # modified by an inplace operation
        found = torch.autograd.grad(value, views)
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("index", [0, 1])
def test_gradient_for_one_view(fast, index):
    """Of a value whose views all require one, and of a value where only this one does."""
    both = leaves()
    one = [view.detach() for view in both]
    one[index].requires_grad_()
    expected = torch.autograd.grad(fast(*both), both)[index]
    assert torch.equal(torch.autograd.grad(fast(*both), both[index])[0], expected)
    assert torch.equal(torch.autograd.grad(fast(*one), one[index])[0], expected)


def test_one_tensor_as_both_views(fast):
    view = leaves(torch.float64)[0]
    found = torch.autograd.grad(fast(view, view), view)[0]
    reference = losses.create(fast.name)
    expected = torch.autograd.grad(reference(view, view), view)[0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))]
)
def test_copies(fast, duplicate):
    views = leaves()
    again = duplicate(fast)
    assert repr(again) == repr(fast)
    assert torch.equal(again(*views), fast(*views))


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))]
)
@pytest.mark.parametrize("name", losses.names())
def test_copies_of_auto(name, duplicate):
    views = leaves()
    loss = losses.create(name, "auto", memory_bytes=10**9)
    assert torch.equal(duplicate(loss)(*views), loss(*views))


def test_backward_inside_autocast(fast):
    """The products of a hand-written backward pass are not rounded to bf16 either."""
    views = leaves()
    expected = torch.autograd.grad(fast(*views), views)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(fast(*views), views)
    assert {each.dtype for each in found} == {torch.float32}
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not_reentrant"])
def test_checkpointing_changes_nothing(fast, reentrant):
    value, gradients = value_and_gradients(fast, *leaves())
    again, found = value_and_gradients_checkpointed(fast, reentrant, *leaves())
    assert torch.equal(again, value)
    assert all(map(torch.equal, found, gradients))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gradient_of_half_precision_views(fast, dtype):
    """Computed in fp32 and rounded once, at the end."""
    views = leaves(dtype)
    wide = [view.detach().float() for view in views]
    found = torch.autograd.grad(fast(*views), views)
    _, expected = value_and_gradients(fast, *wide)
    rounded = [gradient.to(dtype) for gradient in expected]
    assert all(map(torch.equal, found, rounded))


def test_value_without_a_gradient_is_the_same(fast):
    views = leaves()
    with torch.no_grad():
        value = fast(*views)
    assert value.grad_fn is None
    torch.testing.assert_close(value, fast(*views).detach(), rtol=1e-6, atol=0)


def test_identical_views_leave_the_positives_without_a_gradient():
    """rho = 1 is an extremum: the reference's difference u - v is 0, not rounded products'."""
    view = random_views(10, 15)[0].float()
    expected = [torch.zeros_like(view)] * 2
    for each in ("reference", "gram", "chunked"):
        _, gradients = value_and_gradients(losses.create("smi", each, lambda_=0.0), view, view)
        torch.testing.assert_close(gradients, expected, rtol=0, atol=1e-6, msg=each)


class MatmulPrecision(TorchDispatchMode):
    """The precision that is set while each product runs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.overloadpacket in PRODUCTS:
            self.seen.append(torch.backends.cuda.matmul.fp32_precision)
        return operation(*args, **(kwargs or {}))


@pytest.fixture(params=["high", "medium"])
def rough_products(request):
    """The user allows TF32, which keeps 3 digits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("implementation", ["gram", "chunked"])
@pytest.mark.parametrize("name", ["barlow_twins", "vicreg"])
@pytest.mark.parametrize("samples_first", [True, False])
def test_what_cancels_is_computed_in_full_precision(
    rough_products, name, implementation, samples_first
):
    """The diagonal of C or Cov is subtracted: no product of these forms may be TF32."""
    views = leaves() if samples_first else [view.T.detach().requires_grad_() for view in leaves()]
    with MatmulPrecision() as products:
        value = create(name, implementation)(*views)
        forward = len(products.seen)
        value.backward()
    assert forward > 0
    if implementation == "gram":
        assert len(products.seen) > forward
    assert set(products.seen) == {"ieee"}
    assert torch.get_float32_matmul_precision() == rough_products


def test_precision_is_restored_after_an_error(rough_products, monkeypatch):
    def fail(*args):
        raise MemoryError

    monkeypatch.setattr("lossbench.losses.cross_norm.symmetric_gram", fail)
    with pytest.raises(MemoryError):
        create("vicreg", "gram")(*leaves())
    assert torch.get_float32_matmul_precision() == rough_products
