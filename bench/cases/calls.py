"""What a case calls."""

from collections.abc import Callable

import torch
from torch import Tensor

from lossbench import losses
from lossbench.bench.cases import contenders
from lossbench.bench.cases.case import Case

Call = Callable[[], tuple[Tensor, ...]]


def create_loss(case: Case) -> Callable[..., Tensor]:
    """The loss of a case, on its device: a module or contender; of a share, of imagined ranks."""
    if case.contender:
        return contenders.resolve(case.contender)
    if case.is_share:
        return create_share(case, losses.Imagined(case.world))
    loss = losses.create(case.loss, case.implementation, **case.hyperparameters, **case.options)
    return loss.to(case.device)  # a guest may have tensors of its own


def create_share(case: Case, world: losses.World) -> Callable[..., Tensor]:
    """The loss of a case as it is distributed over the ranks of a world."""
    loss = losses.create(case.loss, **case.hyperparameters)
    return losses.distribute(loss, case.distribution, world)


def exchanges(case: Case) -> list[tuple[str, float]]:
    """Kind and bytes of each exchange of a share, see ``losses.Imagined``."""
    world = losses.Imagined(case.world)
    dtype = getattr(torch, case.dtype)
    z_a, z_b = (torch.empty(case.batch, case.dim, dtype=dtype, device="meta") for _ in "ab")
    case_call(case, create_share(case, world), (z_a, z_b))()
    return world.exchanges


def make_call(loss: Callable[..., Tensor], views: tuple[Tensor, Tensor], pass_: str) -> Call:
    """The work of one pass, as a function of fresh graphs.

    Returns:
        A function that returns the value (``forward``: without a graph; ``forward_grad``: with its
        graph) and, for ``step``, the gradients of both views.
    """
    leaves = [view.detach().requires_grad_(pass_ != "forward") for view in views]

    def forward() -> tuple[Tensor, ...]:
        return (loss(*leaves),)

    def step() -> tuple[Tensor, ...]:
        value = loss(*leaves)
        return (value.detach(), *torch.autograd.grad(value, leaves))

    return step if pass_ == "step" else forward


def case_call(case: Case, loss: Callable[..., Tensor], views: tuple[Tensor, Tensor]) -> Call:
    """The work of a case's pass, in the precision that it asks for."""
    call = make_call(loss, views, case.pass_)
    if not case.products:
        return call

    def within() -> tuple[Tensor, ...]:
        with losses.products(case.products):
            return call()

    return within
