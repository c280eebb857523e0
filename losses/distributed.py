"""A loss under data parallelism, through ``torch.distributed``: each rank holds part of the batch.

``local``     each rank's loss of its own samples; their mean is the loss of the job
``gather``    any implementation of the loss on the views of all ranks, computed by each of them
``allreduce`` D x D sums over the batch are added up over the ranks: Barlow Twins, VICReg
``gram``      each rank computes its own rows of the N x N Grams, against the views of all ranks

All but ``local`` are exact: every rank gets the loss L of the global batch (the samples of rank 0,
then those of rank 1, ...), and W times the slice of its gradient that belongs to the rank's own
views. DDP averages the gradients of parameters over the W ranks, which makes them those of L.

    loss = distribute(losses.create("nt_xent"), "gather")
    loss(model(x_a), model(x_b)).backward()         # model: DistributedDataParallel

A loss file registers its own forms ``allreduce`` and ``gram`` with the decorator ``form``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from lossbench.losses.collectives import World
from lossbench.losses.costs import Cost, Exchange, Problem, all_gather_bytes
from lossbench.losses.loss import Loss, _validate_view
from lossbench.losses.naming import pick
from lossbench.losses.precision import own_precision
from lossbench.losses.registry import spec

DISTRIBUTIONS = ("local", "gather", "allreduce", "gram")
"""Ways to compute a loss on the samples of several ranks."""
FORMS = DISTRIBUTIONS[2:]
"""Those that take the place of the implementation."""

Compute = Callable[..., dict[str, Tensor]]
"""``compute(world, hyperparameters, z_a, z_b, ...)`` -> weighted terms of the global batch."""
Bytes = Callable[[Exchange], int]
Share = Callable[[Problem, int], Cost]
"""``cost(problem, world)`` -> counts of one rank that holds the problem's N of the W N samples."""
Function = TypeVar("Function", bound=Compute)


@dataclass(frozen=True)
class Form:
    """One loss, distributed in one way.

    Attributes:
        compute: terms of the global batch from a rank's own views, fp32 or wider.
        communicated_bytes: what each rank communicates for it (ring algorithms).
        cost: what each rank computes.
    """

    compute: Compute
    communicated_bytes: Bytes
    cost: Share


_FORMS: dict[str, dict[str, Form]] = {name: {} for name in FORMS}


def form(
    loss: str, distribution: str, communicated_bytes: Bytes, cost: Share
) -> Callable[[Function], Function]:
    """Decorator: register a ``Compute`` function as the ``distribution`` of ``loss``."""

    def decorate(function: Function) -> Function:
        _FORMS[distribution][loss] = Form(function, communicated_bytes, cost)
        return function

    return decorate


def distributions(loss: str) -> tuple[str, ...]:
    """Those of ``DISTRIBUTIONS`` that a loss has.

    Raises:
        ValueError: unknown loss; the known ones are listed.
    """
    name = spec(loss).name
    return tuple(each for each in DISTRIBUTIONS if each not in _FORMS or name in _FORMS[each])


def communicated_bytes(loss: str, distribution: str, job: Exchange) -> int:
    """Bytes each rank communicates for one evaluation (ring algorithms).

    Args:
        loss: name of the loss.
        distribution: one of ``distributions(loss)``.
        job: the job. ``gather`` sends views as they are; the others send fp32 or wider.

    Raises:
        ValueError: unknown loss, or a distribution that it does not have.
    """
    pick("distribution", distribution, DISTRIBUTIONS)
    if distribution in _FORMS:
        return _form(spec(loss).name, distribution).communicated_bytes(job)
    return all_gather_bytes(job) if distribution == "gather" else 0


def share_cost(loss: str, distribution: str, problem: Problem, world: int) -> Cost:
    """Counts of what one of W ranks computes in one of ``FORMS``.

    Args:
        loss: name of the loss.
        distribution: one of ``FORMS`` that it has.
        problem: the rank's own batch, of fp32 or wider.
        world: number of ranks, W.

    Raises:
        ValueError: unknown loss, or a form that it does not have.
    """
    return _form(spec(loss).name, pick("form", distribution, FORMS)).cost(problem, world)


def distribute(loss: nn.Module, distribution: str, world: World | None = None) -> nn.Module:
    """A loss of the samples of all ranks, called with this rank's views.

    ``gather`` runs the loss as it is, whatever its implementation. Its gradient is summed over the
    ranks by a reduce-scatter, as the official codes do; since all ranks compute the same, W times
    a rank's own slice would be the same without communication. The other forms make use of that;
    they take the place of the implementation.

    Args:
        loss: a loss of the registry; for ``local`` and ``gather``, any module that is called with
            N x D views.
        distribution: one of ``DISTRIBUTIONS``.
        world: the ranks; default: all processes.

    Returns:
        A module: called with N x D views, at least 2 samples and the same shape on every rank, it
        returns a scalar. Every rank must call it, and backward after it, in the same order.
        It raises a ``ValueError`` on all ranks when the views of one do not fit: that is looked at
        when views of a shape come for the first time, and must then be so on all ranks.

    Raises:
        ValueError: an unknown distribution, one that the loss does not have, or (but for ``local``,
            where nothing is communicated) a loss that declares its inputs, or
            ``torch.distributed`` not initialised.
    """
    pick("distribution", distribution, DISTRIBUTIONS)
    if distribution == "local":
        return loss
    if isinstance(loss, Loss) and not loss.has_views:
        raise ValueError(f"{distribution} is of losses of views; {loss.name} declares its inputs")
    if distribution == "gather":
        return _Gathered(loss, world or World())
    if not isinstance(loss, Loss):
        raise ValueError(f"{distribution} needs a loss of losses.create, got {type(loss).__name__}")
    compute = _form(loss.name, distribution).compute
    return _Formed(loss, world or World(), distribution, compute)


def _form(loss: str, distribution: str) -> Form:
    having = _FORMS[distribution]
    if loss not in having:
        known = ", ".join(sorted(having))
        raise ValueError(f"{loss} has no distribution {distribution!r}; those that have: {known}")
    return having[loss]


class _Gathered(nn.Module):
    """The loss of the gathered views."""

    def __init__(self, loss: nn.Module, world: World) -> None:
        super().__init__()
        self.loss = loss
        self._world = world
        self._agreed: set[tuple[int, ...]] = set()

    def forward(self, *views: Tensor) -> Tensor:
        _agree(self._world, self.loss, views, self._agreed)
        gathered = self._world.gather_with_gradient(torch.stack(views))
        return self.loss(*gathered.unbind())


class _Formed(nn.Module):
    """The loss from each rank's part of the work."""

    def __init__(self, loss: Loss, world: World, distribution: str, compute: Compute) -> None:
        super().__init__()
        self.loss = loss
        self.distribution = distribution
        self._world = world
        self._compute = compute
        self._agreed: set[tuple[int, ...]] = set()

    def forward(self, *views: Tensor) -> Tensor:
        _agree(self._world, self.loss, views, self._agreed)
        with own_precision(views[0].device.type):
            wide = [view.to(torch.promote_types(view.dtype, torch.float32)) for view in views]
            terms = self._compute(self._world, self.loss.hyperparameters, *wide)
        return torch.stack(list(terms.values())).sum()

    def extra_repr(self) -> str:
        return repr(self.distribution)


_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _agree(
    world: World, loss: nn.Module, views: Sequence[Tensor], agreed: set[tuple[int, ...]]
) -> None:
    """Refuse views that do not fit, on every rank: one that went on alone would wait for ever.

    What fitted once is not asked again: that would be an exchange more in every step.
    """
    refusal = None
    try:
        facts = _facts(loss, views)
    except ValueError as error:
        refusal, facts = error, [0, 0, 0, 0]
    if tuple(facts) in agreed:
        return
    of_all = world.exchange(facts)
    if refusal is not None:
        raise refusal
    if any(each != facts for each in of_all):
        shown = "; ".join(f"rank {rank}: {_show(each)}" for rank, each in enumerate(of_all))
        raise ValueError(f"views must have the same shape and dtype on every rank, got {shown}")
    agreed.add(tuple(facts))


def _facts(loss: nn.Module, views: Sequence[Tensor]) -> list[int]:
    """Number of views, N, D, and which dtype."""
    if isinstance(loss, Loss):
        loss._validate(tuple(views))
    elif not views:
        raise ValueError("a loss needs views, got none")
    for index, view in enumerate(views):
        _validate_view(f"view {index}", view, views[0])
    if views[0].dtype not in _DTYPES:
        raise ValueError(f"views must be of 16, 32 or 64 bits, got {views[0].dtype}")
    return [len(views), *views[0].shape, _DTYPES.index(views[0].dtype)]


def _show(facts: list[int]) -> str:
    views, batch, dim, dtype = facts
    return f"{views} of {batch} x {dim}, {_DTYPES[dtype]}" if views else "views that are refused"
