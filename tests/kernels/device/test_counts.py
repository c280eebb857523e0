"""The cost model counts exactly what the kernels multiply, and FLOP counters see the same."""

from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from embeddings import random_views, value_and_gradients
from tilings import SMALL, small_tiles
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from triton.runtime.interpreter import InterpreterBuilder

from lossbench import losses
from lossbench.kernels import engine, product
from lossbench.kernels.language import INTERPRETED
from lossbench.kernels.ops import FVCORE_HANDLES

FUSED = ["barlow_twins", "nt_xent", "smi", "spectral_contrastive", "vicreg"]
SHAPES = [(27, 37), (41, 20), (13, 150)]
"""Ragged; fewer features than samples; and so many that ``split_kernel`` has several parts."""
keeps = pytest.mark.parametrize("keeps", [True, False], ids=["kept", "not_kept"])
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_loss = pytest.mark.parametrize("name", FUSED)
interpreted = pytest.mark.skipif(not INTERPRETED, reason="a GPU does not say what it multiplies")


@contextmanager
def counted_macs():
    """Multiply-adds of the kernels' and of torch's products: one count of each, in a list."""
    macs = []
    dot = InterpreterBuilder.create_dot

    def counted_dot(self, a, b, *rest):
        macs.append(a.data.shape[0] * a.data.shape[1] * b.data.shape[1])
        return dot(self, a, b, *rest)

    def counted(multiply, left, right):
        def count(*operands):
            macs.append(
                operands[left].shape[0] * operands[left].shape[1] * operands[right].shape[1]
            )
            multiply(*operands)

        return count

    matrix_product, add_product = product.matrix_product, product.add_product
    with (
        mock.patch.object(InterpreterBuilder, "create_dot", counted_dot),
        mock.patch.object(engine, "matrix_product", counted(matrix_product, 0, 1)),
        mock.patch.object(product, "matrix_product", counted(matrix_product, 0, 1)),
        mock.patch.object(product, "add_product", counted(add_product, 1, 2)),
    ):
        yield macs


def step_macs(name, shape, strategy, device):
    views = [view.to(device, torch.float32) for view in random_views(*shape)]
    with counted_macs() as macs:
        value_and_gradients(losses.create(name, "triton", strategy=strategy), *views)
    return sum(macs)


def expected_macs(name, shape):
    cost = losses.spec(name).cost("triton", losses.Problem(*shape))
    return cost.forward_macs + cost.backward_macs + cost.padding_macs + cost.recomputed_macs


@interpreted
@keeps
@shapes
@every_loss
@pytest.mark.parametrize("strategy", ["fused", "split"])
def test_kernels_multiply_what_the_cost_model_says(name, shape, strategy, keeps, device):
    with small_tiles(keeps):
        assert step_macs(name, shape, strategy, device) == expected_macs(name, shape)


@interpreted
@keeps
@shapes
def test_cublas_does_not_know_of_triangles(shape, keeps, device):
    """It makes the lower half of each product on the diagonal, too."""
    with small_tiles(keeps):
        found = step_macs("smi", shape, "cublas", device)
        side, depth = (-(-length // 16) * 16 for length in (shape[0], shape[1]))
        below = 0
        for block in chop(2 * side, 2 * side if keeps else SMALL.side):
            # a product on the diagonal has all tiles of 16 x 32, not those with a right part alone
            below += sum(each * (each - 32) // 2 for each in chop(block, SMALL.product_side))
        assert found == expected_macs("smi", shape) + below * depth


def chop(length, side):
    return [min(side, length - start) for start in range(0, length, side)]


@contextmanager
def fake_views(batch, dim, requires_grad):
    with FakeTensorMode():
        yield [torch.empty(batch, dim, requires_grad=requires_grad) for _ in "ab"]


def counter_macs(loss, shape, pass_):
    """What ``FlopCounterMode`` sees of a pass."""
    with fake_views(*shape, pass_ != "forward") as views, FlopCounterMode(display=False) as counter:
        value = loss(*views)
        if pass_ == "step":
            value.backward()
    return counter.get_total_flops() / 2


def fvcore_macs(loss, shape):
    from fvcore.nn import FlopCountAnalysis

    views = tuple(torch.empty(shape, device="meta") for _ in "ab")
    analysis = FlopCountAnalysis(loss, views)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    # elementwise work, which fvcore alone would count
    elementwise = {"aten::batch_norm": lambda inputs, outputs: 0}
    for op, handle in (FVCORE_HANDLES | elementwise).items():
        analysis.set_op_handle(op, handle)
    return analysis.total()


LARGE = [(20000, 256), (256, 20000), (9000, 9001)]
"""Not kept, and counted without memory; the Gram of a loss of features is of the shorter side."""


@pytest.mark.parametrize("shape", [*SHAPES, (2, 1), *LARGE], ids=str)
@every_loss
def test_fvcore_agrees(name, shape):
    pytest.importorskip("fvcore")
    cost = losses.spec(name).cost("triton", losses.Problem(*shape))
    assert fvcore_macs(losses.create(name, "triton"), shape) == cost.forward_macs


@pytest.mark.parametrize("shape", [*SHAPES, (2, 1), *LARGE], ids=str)
@every_loss
def test_flop_counter_agrees(name, shape):
    loss = losses.create(name, "triton")
    cost = losses.spec(name).cost("triton", losses.Problem(*shape))
    for pass_ in losses.PASSES:
        assert counter_macs(loss, shape, pass_) == cost.macs(pass_)


@pytest.mark.parametrize(("batch", "dim"), [*SHAPES, (20000, 256)])
def test_smi_is_half_of_the_square(batch, dim):
    """The pairs of 2 N rows, each once, and once more for the gradient of either row."""
    loss = losses.create("smi", "triton")
    assert counter_macs(loss, (batch, dim), "forward") == 2 * batch**2 * dim
    assert counter_macs(loss, (batch, dim), "step") == 6 * batch**2 * dim
