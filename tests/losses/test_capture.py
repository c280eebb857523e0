"""What a CUDA graph can hold, as far as a CPU can tell: nothing that waits for the device.

Tensors without values cannot be waited for, and whatever is on another device would be copied.
"""

import pytest
import torch
from embeddings import eager
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from lossbench import losses
from lossbench.bench.counting.recording import CAN_RECORD, recorded
from lossbench.kernels import configs
from lossbench.kernels.ops import HOSTS
from lossbench.losses.devices import as_if_on

WAYS = [(name, each) for name in losses.names() for each in eager(name)]
FUSED = [(name, each) for name in losses.names() for each in losses.spec(name).fused]
DTYPES = [torch.float32, torch.bfloat16]


class OnDevice(TorchDispatchMode):
    """Refuses tensors on any device but the views'; without values, values cannot be asked for."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if operation in HOSTS:
            with self:
                return HOSTS[operation](*args, **kwargs)
        # torch 2.11 does not know a product in another dtype where there are no values
        result = kwargs["out"] if "out" in kwargs else operation(*args, **kwargs)
        for each in tree_iter((args, kwargs, result)):
            if isinstance(each, torch.Tensor):
                assert each.device.type == "meta", f"{operation} on {each.device}"
        return result


def take_a_step(loss, dtype, batch=70, dim=50):
    views = [torch.empty(batch, dim, dtype=dtype, device="meta").requires_grad_() for _ in "ab"]
    with as_if_on("cuda"), OnDevice():
        loss(*views).backward(torch.empty((), device="meta"))
    assert all(view.grad.shape == view.shape for view in views)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "implementation"), WAYS)
def test_a_step_waits_for_nothing(name, implementation, dtype):
    take_a_step(losses.create(name, implementation), dtype)


@pytest.mark.skipif(not CAN_RECORD, reason="kernels can be launched only where triton is installed")
@pytest.mark.parametrize("strategy", configs.STRATEGIES)
@pytest.mark.parametrize("batch", [70, 5000])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "implementation"), FUSED)
def test_a_step_of_kernels_waits_for_nothing(name, implementation, dtype, batch, strategy):
    config = configs.table()["90"][configs.kind_of(dtype, "ieee")]
    launched = []
    with recorded(config, lambda kernel, arguments, grid: launched.append(grid)):
        take_a_step(losses.create(name, implementation, strategy=strategy), dtype, batch, 600)
    assert launched


def test_what_waits_is_refused():
    view = torch.empty(3, 4, device="meta")
    with OnDevice(), pytest.raises(AssertionError, match="on cpu"):
        torch.tensor(1.0)
    with OnDevice(), pytest.raises(RuntimeError, match="meta"):
        view.sum().item()
