"""Losses that are none of ours: some that are right, and each way to be wrong."""

import os
import signal
import time

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


def alignment_and_uniformity(z_a: Tensor, z_b: Tensor, weight: float = 1.0) -> Tensor:
    """Wang and Isola, 2020: of unit rows, with matrix products alone."""
    a, b = normalize(z_a, dim=1), normalize(z_b, dim=1)
    return (a - b).square().sum(dim=1).mean() + weight * (uniformity(a) + uniformity(b)) / 2


def uniformity(z: Tensor) -> Tensor:
    squared = 2 - 2 * (z @ z.T)
    above = torch.ones_like(squared).triu(1)
    return ((-2 * squared).exp() * above).sum().div(above.sum()).log()


def weighted(weight: float):
    """A factory."""
    return lambda z_a, z_b: alignment_and_uniformity(z_a, z_b, weight)


class Temperature(nn.Module):
    """A loss with a parameter and a buffer of its own."""

    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(start)))
        self.register_buffer("shift", torch.tensor(0.5))

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        return self.scale.exp() * (z_a - z_b + self.shift).square().mean()


class _OffGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z_a, z_b):
        ctx.save_for_backward(z_a, z_b)
        return (z_a - z_b).square().sum()

    @staticmethod
    def backward(ctx, gradient):
        z_a, z_b = ctx.saved_tensors
        right = 2 * (z_a - z_b) * gradient
        return 1.01 * right, -1.01 * right


def one_percent_off(z_a: Tensor, z_b: Tensor) -> Tensor:
    """A gradient that is 1% too long."""
    return _OffGradient.apply(z_a, z_b)


def stopped(z_a: Tensor, z_b: Tensor) -> Tensor:
    """A loss that stops gradients on purpose, and says so."""
    return (z_a - z_b.detach()).square().mean() + (z_a.detach() - z_b).square().mean()


def stops_in_silence(z_a: Tensor, z_b: Tensor) -> Tensor:
    return stopped(z_a, z_b)


stopped.stops_gradient = True


def vector(z_a: Tensor, z_b: Tensor) -> Tensor:
    return (z_a - z_b).square().sum(dim=1)


def number(z_a: Tensor, z_b: Tensor) -> float:
    return 1.0


def not_finite(z_a: Tensor, z_b: Tensor) -> Tensor:
    return (z_a * z_b).sum() / 0.0


def one_view(z_a: Tensor, z_b: Tensor) -> Tensor:
    return z_a.square().mean() + 0.0 * z_b.sum()


def three_views(z_a: Tensor, z_b: Tensor, labels: Tensor) -> Tensor:
    return (z_a - z_b).square().mean()


def raises(z_a: Tensor, z_b: Tensor) -> Tensor:
    raise ZeroDivisionError("there is no loss")


def greedy(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Wants all memory there is, and more."""
    return (z_a - z_b).square().mean() + torch.ones(2**46).sum()


def exits(z_a: Tensor, z_b: Tensor) -> Tensor:
    os._exit(3)


def crashes(z_a: Tensor, z_b: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGSEGV)
    return z_a.sum()


def hangs(z_a: Tensor, z_b: Tensor) -> Tensor:
    time.sleep(600)
    return z_a.sum()


def forks(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Leaves a child behind."""
    if os.fork() == 0:
        time.sleep(1)
        os._exit(0)
    return (z_a - z_b).square().mean()


def of_fp32_alone(z_a: Tensor, z_b: Tensor) -> Tensor:
    if z_a.dtype != torch.float32:
        raise TypeError("fp32 alone")
    return (z_a - z_b).square().mean()


def with_a_reference(z_a: Tensor, z_b: Tensor) -> Tensor:
    """A kernel for fp32, beside what it must equal."""
    return (z_a.float() - z_b.float()).square().mean()


with_a_reference.reference = lambda z_a, z_b: (z_a - z_b).square().mean()

NOTHING = None
