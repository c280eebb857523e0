"""Global batch norm: on several processes, the network of one process on the global batch."""

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from lossbench import losses
from lossbench.bench.pretraining.batch_norm import make_global

BATCH = 6
"""Samples of each process."""


def network():
    torch.manual_seed(1)
    layers = (
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(4 * 9, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 5)),
    )
    return nn.Sequential(*layers).double()


def views(world):
    """Images of all processes, each process's with a mean of its own."""
    generator = torch.Generator().manual_seed(2)
    shape = (world * BATCH, 3, 5, 5)
    place = torch.arange(world).repeat_interleave(BATCH).view(-1, 1, 1, 1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) + place for _ in range(2)]


def trained(net, loss, own):
    """The loss, the gradients and running statistics after a step."""
    value = loss(*(net(view) for view in own))
    value.backward()
    return value.detach(), [each.grad for each in net.parameters()], list(net.buffers())


def one_of_many(rank, world, folder):
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    net = DistributedDataParallel(make_global(network(), "cpu"), broadcast_buffers=False)
    own = [view[rank * BATCH :][:BATCH] for view in views(world)]
    loss = losses.distribute(losses.create("nt_xent"), "gather")
    found = trained(net, loss, own)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.long)])
def test_several_processes_train_as_one(tmp_path, world):
    multiprocessing.spawn(one_of_many, (world, tmp_path), nprocs=world)
    value, gradients, statistics = trained(network(), losses.create("nt_xent"), views(world))
    for rank in range(world):
        mine = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(mine[0], value, rtol=1e-10, atol=0)
        for gradient, expected in zip(mine[1], gradients, strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)
        kept = [each for each in statistics if each.is_floating_point()]
        found = [each for each in mine[2] if each.is_floating_point()]
        for buffer, expected in zip(found, kept, strict=True):
            torch.testing.assert_close(buffer, expected, rtol=1e-10, atol=1e-12)


def test_evaluation_needs_no_other_process():
    plain, made = network(), make_global(network(), "cpu")
    (images, _) = views(1)
    torch.testing.assert_close(made.eval()(images), plain.eval()(images), rtol=0, atol=0)


def test_weights_keep_their_names():
    assert list(make_global(network(), "cpu").state_dict()) == list(network().state_dict())
