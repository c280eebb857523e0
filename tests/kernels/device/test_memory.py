"""Memory grows with N D and a workspace: no N x N matrix is saved, nor ever there."""

from unittest import mock

import pytest
import torch
from embeddings import random_views
from tilings import SMALL, small_tiles
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from lossbench import losses
from lossbench.bench.measuring.memory import peak_bytes

OF_SAMPLES = ["nt_xent", "smi", "spectral_contrastive"]


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_large_batches_save_rows_and_no_gram(name):
    batch, dim = 65536, 1024
    saved = {}

    def save(tensor):
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with FakeTensorMode(), saved_tensors_hooks(save, lambda tensor: tensor):
        views = [torch.empty(batch, dim, dtype=torch.bfloat16, requires_grad=True) for _ in "ab"]
        losses.create(name, "triton")(*views)
        sizes = [tensor.untyped_storage().nbytes() for tensor in saved.values()]
    assert 3 * batch * dim * 2 < sum(sizes) < 1e9
    assert max(sizes) <= 2 * batch * dim * 2  # the rows of both views


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_peak_grows_with_the_batch_and_not_its_square(name, device):
    batch, dim = 40, 64
    loss = losses.create(name, "triton")
    with small_tiles(keeps=False), mock.patch("lossbench.kernels.cost.SIDE", SMALL.side):
        peaks = [step_peak(loss, batch << doubled, dim, device) for doubled in (0, 1)]
        cost = losses.spec(name).cost("triton", losses.Problem(2 * batch, dim))
    assert peaks[1] < 2.3 * peaks[0]
    assert peaks[1] < 1.3 * 4 * cost.peak_elements


def step_peak(loss, batch, dim, device):
    views = [view.to(device, torch.float32) for view in random_views(batch, dim)]
    leaves = [view.requires_grad_() for view in views]
    return peak_bytes(lambda: torch.autograd.grad(loss(*leaves), leaves), device)
