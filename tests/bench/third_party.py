"""Losses of a third party: one that is right by another factor, and each way to be wrong."""

import multiprocessing
import os
import signal

import torch
from torch import Tensor

from lossbench import losses

FACTOR = 0.025
"""What the Barlow Twins of another library multiply the loss by."""
_ours = losses.create("barlow_twins")


def scaled(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Ours, scaled by a convention."""
    return FACTOR * _ours(z_a, z_b)


def raises(z_a: Tensor, z_b: Tensor) -> Tensor:
    raise ZeroDivisionError("there is no loss\nand a second line of it")


def vector(z_a: Tensor, z_b: Tensor) -> Tensor:
    """One loss for each sample."""
    return (z_a - z_b).square().sum(dim=1)


def mutates(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Ours, of an input that it then overwrites."""
    value = _ours(z_a * 1.0, z_b)
    z_a.data.mul_(2)
    return value


def one_view(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Ours, of the first view twice."""
    return _ours(z_a, z_a)


def noisy(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Ours, and a little noise."""
    return _ours(z_a, z_b) * (1 + torch.rand(()))


def detached(z_a: Tensor, z_b: Tensor) -> Tensor:
    """The value of ours, but half of the gradient."""
    value = _ours(z_a, z_b)
    return (value + value.detach()) / 2


def one_sided(z_a: Tensor, z_b: Tensor) -> Tensor:
    """The value of ours, without the second view's gradient."""
    return _ours(z_a, z_b.detach())


def looks_at_values(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Ours, if the values are finite."""
    value = _ours(z_a, z_b)
    if not value.item() < float("inf"):
        raise ValueError("not finite")
    return value


class Weighted(torch.nn.Module):
    """Ours, with a constructor argument."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self._factor = factor

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        return self._factor * _ours(z_a, z_b)


class NeedsArgument(torch.nn.Module):
    """Cannot be built without being told how."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor


another_loss = losses.create("vicreg")


def dies(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Takes the process with it."""
    os.abort()


def dies_with_a_lock(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Killed while it holds a lock between processes, as tqdm does."""
    lock = multiprocessing.RLock()
    with lock:
        os.kill(os.getpid(), signal.SIGKILL)
    return z_a.sum()
