"""Odd inputs get the right answer, or an error that says what is wrong with which."""

import re

import numpy as np
import pytest
import torch
from embeddings import random_views, value_and_gradients
from rounding import assert_close_to, outcome, permitted_errors
from tilings import small_tiles

from lossbench import losses
from lossbench.kernels.language import INTERPRETED

FUSED = ["barlow_twins", "nt_xent", "smi", "spectral_contrastive", "vicreg"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
N, D = 14, 21
every_loss = pytest.mark.parametrize("name", FUSED)


def batch(device, dtype=torch.float32, shape=(N, D)):
    return [view.to(device, dtype) for view in random_views(*shape)]


def assert_equal(found, expected):
    """Equal to the bit."""
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


VIEWS = {
    "transposed": lambda base: base[:D, :N].T,
    "strided": lambda base: base[::2, ::3][:N, :D],
    "offset": lambda base: base[1 : N + 1, 3 : D + 3],
    "one_row": lambda base: base[:1, :D].expand(N, D),
    "one_column": lambda base: base[:N, :1].expand(N, D),
    "overlapping": lambda base: base.as_strided((N, D), (1, 1)),
}


@every_loss
@pytest.mark.parametrize("view", VIEWS)
def test_strides_do_not_matter(name, view, device):
    loss = losses.create(name, "triton")
    bases = [base.requires_grad_() for base in batch(device, shape=(2 * N, 3 * D))]
    found = []
    with small_tiles():
        for settle in (torch.Tensor.view_as, lambda z, _: z.contiguous()):
            strided = [VIEWS[view](base) for base in bases]
            assert not any(z.is_contiguous() for z in strided)
            value = loss(*[settle(z, z) for z in strided])
            found.append((value, *torch.autograd.grad(value, bases)))
    # torch takes the moments of features, in the order of their strides
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "not_kept"])
@every_loss
def test_one_view_may_need_no_gradient(name, keeps, device):
    loss, views = losses.create(name, "triton"), batch(device)
    with small_tiles(keeps):
        value, both = value_and_gradients(loss, *views)
        for one in (0, 1):
            leaves = [view.clone().requires_grad_(i == one) for i, view in enumerate(views)]
            found = loss(*leaves)
            found.backward()
            assert_equal((found, leaves[one].grad), (value, both[one]))
            assert leaves[1 - one].grad is None
        assert_equal(loss(*views), value)
        assert not loss(*views).requires_grad


@every_loss
@pytest.mark.parametrize("shape", [(2, 1), (2, 9), (7, 1), (17, 1)], ids=str)
def test_least_batches(name, shape, device):
    views = [view.float() for view in random_views(*shape)]
    truth, permitted = permitted_errors(losses.create(name), views)
    with small_tiles():
        found = outcome(losses.create(name, "triton"), [view.to(device) for view in views])
    assert_close_to(truth, permitted, {each: value.cpu() for each, value in found.items()})


@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "not_kept"])
@every_loss
def test_one_tensor_may_be_both_views(name, keeps, device):
    loss, view = losses.create(name, "triton"), batch(device)[0]
    with small_tiles(keeps):
        value, gradients = value_and_gradients(loss, view, view.clone())
        found, (gradient,) = value_and_gradients(lambda z: loss(z, z), view)
    torch.testing.assert_close((found, gradient), (value, sum(gradients)))


@every_loss
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_inputs_are_left_as_they_are(name, dtype, device):
    views = [view.requires_grad_() for view in batch(device, dtype)]
    before = [view.detach().clone() for view in views]
    with small_tiles():
        losses.create(name, "triton")(*views).backward()
    assert_equal([view.detach() for view in views], before)
    assert [view._version for view in views] == [0, 0]


@pytest.fixture
def maxima_as_on_a_gpu(monkeypatch):
    """There, the larger of NaN and a number is the number; the interpreter says NaN."""
    if INTERPRETED:
        from triton.runtime.interpreter import InterpreterBuilder

        for name, function in (("create_maxnumf", np.fmax), ("create_minnumf", np.fmin)):
            monkeypatch.setattr(
                InterpreterBuilder, name, lambda self, x, y, f=function: self.binary_op(x, y, f)
            )


@every_loss
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    ("one", "entries"), [(0, (3, slice(None))), (1, (N - 1, D - 1))], ids=["row", "entry"]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter
def test_what_is_not_finite_is_not_hidden(
    name, dtype, bad, one, entries, device, maxima_as_on_a_gpu
):
    """A training script tells by the value that it has diverged."""
    views = batch(device, dtype)
    views[one][entries] = bad
    expected = losses.create(name).terms(*views)
    with small_tiles():
        found = losses.create(name, "triton").terms(*views)
    assert not sum(found.values()).isfinite()
    hidden = [each for each in found if found[each].isfinite() and not expected[each].isfinite()]
    assert not hidden


GOOD = torch.zeros(4, 3)


@every_loss
@pytest.mark.parametrize(
    ("views", "message"),
    [
        ((GOOD[:1], GOOD[:1]), "z_a holds 1 sample"),
        ((GOOD[0], GOOD[0]), "z_a must have shape N x D, got (3,)"),
        ((GOOD, GOOD[:3]), "z_b has shape (3, 3) but z_a has (4, 3)"),
        ((GOOD.int(), GOOD.int()), "z_a must be floating point, got torch.int32"),
        ((GOOD, GOOD.half()), "z_b has dtype torch.float16 but z_a has torch.float32"),
        ((GOOD, GOOD.to("meta")), "z_b has device meta but z_a has"),
        ((GOOD, None), "z_b must be a tensor"),
        ((GOOD,), "got 1"),
    ],
)
def test_bad_views_are_named(name, views, message, device):
    """What lies on the CPU here goes to the device, so that only what is wrong is wrong."""
    on_cpu = [isinstance(view, torch.Tensor) and view.device.type == "cpu" for view in views]
    views = [view.to(device) if move else view for view, move in zip(views, on_cpu, strict=True)]
    with pytest.raises(ValueError, match=re.escape(message)):
        losses.create(name, "triton")(*views)


@every_loss
def test_fp64_is_sent_elsewhere(name, device):
    with pytest.raises(NotImplementedError, match=r"float64.*implementation='gram'"):
        losses.create(name, "triton")(*batch(device, torch.float64))


def test_more_views_are_sent_elsewhere(device):
    views = [*batch(device), *batch(device)][:3]
    with pytest.raises(NotImplementedError, match=r"got 3.*implementation='gram'"):
        losses.create("smi", "triton")(*views)


@every_loss
def test_unknown_strategy(name, device):
    message = r"unknown strategy 'cublass'; did you mean 'cublas'.*known: cublas, fused, split"
    with pytest.raises(ValueError, match=message):
        losses.create(name, "triton", strategy="cublass")(*batch(device))


@pytest.mark.parametrize("name", ["nt_xent", "smi", "spectral_contrastive"])
def test_unknown_precision(name, device):
    with pytest.raises(ValueError, match=r"unknown precision 'bf16'.*known: ieee, tf32"):
        losses.create(name, "triton", precision="bf16")(*batch(device))


@pytest.mark.parametrize("name", ["barlow_twins", "vicreg"])
def test_losses_of_features_have_no_precision_to_choose(name):
    with pytest.raises(ValueError, match="precision"):
        losses.create(name, "triton", precision="tf32")
