"""What a case calls."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lossbench import losses
from lossbench.bench.cases import contenders
from lossbench.bench.cases.case import Case

Call = Callable[[], tuple[Tensor, ...]]


def create_loss(case: Case, device: str = "") -> Callable[..., Tensor]:
    """The loss of a case: a module or contender; of a share, of imagined ranks.

    Args:
        case: what is computed.
        device: of a guest's own tensors; default: the case's.
    """
    if case.contender:
        return contenders.resolve(case.contender)
    if case.is_share:
        return create_share(case, losses.Imagined(case.world))
    loss = losses.create(case.loss, case.implementation, **case.hyperparameters, **case.options)
    return contenders.placed(loss, case, device)


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


def make_call(
    loss: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    pass_: str,
    given: Sequence[losses.Input] | None = None,
) -> Call:
    """The work of one pass, as a function of fresh graphs.

    Args:
        loss: what is called.
        inputs: it is called with them.
        pass_: one of ``losses.PASSES``.
        given: what they are; default: views, all trained.

    Returns:
        A function that returns the value (``forward``: without a graph; ``forward_grad``: with its
        graph) and, for ``step``, the gradients of what is trained. Those of a loss's own parameters
        are computed too.
    """
    leaves = [each.detach() for each in inputs]
    students = [
        leaf.requires_grad_(pass_ != "forward")
        for index, leaf in enumerate(leaves)
        if given is None or given[index].is_trained
    ]

    module = getattr(loss, "__self__", loss)  # of a method of it
    parameters = module.parameters() if isinstance(module, nn.Module) else ()
    own = [each for each in parameters if each.requires_grad]

    def forward() -> tuple[Tensor, ...]:
        return (loss(*leaves),)

    def step() -> tuple[Tensor, ...]:
        value = loss(*leaves)
        gradients = torch.autograd.grad(value, [*students, *own], allow_unused=bool(own))
        return (value.detach(), *gradients[: len(students)])

    return step if pass_ == "step" else forward


def case_call(case: Case, loss: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Call:
    """The work of a case's pass, in the precision that it asks for."""
    call = make_call(loss, inputs, case.pass_, case.given)
    if not case.products:
        return call

    def within() -> tuple[Tensor, ...]:
        with losses.products(case.products):
            return call()

    return within
