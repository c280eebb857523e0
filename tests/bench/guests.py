"""Losses that are none of ours: some that are right, and each way to be wrong."""

import os
import signal
import time

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize


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


def predicted(p_a: Tensor, p_b: Tensor, z_a: Tensor, z_b: Tensor) -> Tensor:
    """SimSiam (arXiv:2011.10566, algorithm 1): predictions against the other view's embeddings."""
    return -(cosine_similarity(p_a, z_b) + cosine_similarity(p_b, z_a)).mean() / 2


predicted.inputs = {"p_a": "student", "p_b": "student", "z_a": "teacher", "z_b": "teacher"}


class Queued(nn.Module):
    """MoCo (arXiv:1911.05722, algorithm 1) of a queue that is given."""

    def __init__(self, queue: int) -> None:
        super().__init__()
        self.inputs = {"q": "student", "k": "teacher", "queue": "teacher queue x D"}

    def forward(self, q: Tensor, k: Tensor, queue: Tensor) -> Tensor:
        q, k, queue = (normalize(each, dim=1) for each in (q, k, queue))
        logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ queue.T], dim=1) / 0.07
        return cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


def banked(z: Tensor, bank: Tensor, index: Tensor, mask: Tensor) -> Tensor:
    """Squared distance to the own rows of a bank, of some samples."""
    distances = (z - bank[index]).square().sum(dim=1)
    return (distances * mask).sum() / mask.sum()


banked.inputs = {"z": "student", "bank": "target 500 x D", "index": "index N < 500", "mask": "mask"}


def without_mask(z: Tensor, bank: Tensor, index: Tensor, mask: Tensor) -> Tensor:
    return (z - bank[index]).square().sum()


def without_target(z: Tensor, target: Tensor) -> Tensor:
    return z.square().sum()


def without_student(z: Tensor, target: Tensor) -> Tensor:
    return (z - target).square().sum()


def of_no_size(z: Tensor) -> Tensor:
    return z.square().sum()


without_mask.inputs = banked.inputs
without_target.inputs = {"z": "student", "target": "target"}
without_student.inputs = {"z": "teacher", "target": "target"}
of_no_size.inputs = {"z": "student N x K"}


class Prototypes(nn.Module):
    """Weights that are drawn at random, and a buffer."""

    def __init__(self, number: int = 50, dim: int = 16) -> None:
        super().__init__()
        self.weights = nn.Linear(dim, number)
        self.register_buffer("shift", torch.rand(number))

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        return (self.weights(z_a) - self.weights(z_b) + self.shift).square().mean()


class _Flipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return z.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def small_part_flipped(z_a: Tensor, z_b: Tensor) -> Tensor:
    """The gradient of the second view, which is small, has the wrong sign."""
    return 1e4 * z_a.square().mean() + _Flipped.apply(z_b).square().mean()


def one_side_stopped(z_a: Tensor, z_b: Tensor) -> Tensor:
    return (z_a - z_b.detach()).square().mean()


one_side_stopped.stops_gradient = True


def selected(z: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Products of those rows alone that a mask chooses, which is known only when it runs."""
    return (z[mask] @ teacher.T).square().mean()


def drawn(z: Tensor, bank: Tensor, index: Tensor) -> Tensor:
    """Negatives whose order does not matter."""
    return (z @ bank[index].T).logsumexp(dim=1).mean()


def tokens(z: Tensor, target: Tensor) -> Tensor:
    return (z - target).square().mean()


def queue_first(queue: Tensor, q: Tensor) -> Tensor:
    return (q @ queue.T).logsumexp(dim=1).mean()


selected.inputs = {"z": "student", "teacher": "teacher", "mask": "mask"}
drawn.inputs = {"z": "student", "bank": "teacher 100 x D", "index": "index 20 < 100"}
tokens.inputs = {"z": "student N x 7 x D", "target": "target N x 7 x D"}
queue_first.inputs = {"queue": "teacher 96 x D", "q": "student"}

NOTHING = None
