"""The registry of losses: a loss is a name, hyperparameters, implementations and cost models.

A loss file registers itself with three decorators: ``register`` on its hyperparameter dataclass,
``implementation`` on each way to compute it, ``cost_model`` on each way's counts.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from losses.costs import Cost, Exchange
from losses.loss import Loss
from losses.naming import pick

Compute = Callable[..., dict[str, Tensor]]
"""``compute(hyperparameters, z_a, z_b, ...)`` -> weighted terms that add up to the loss."""
CostModel = Callable[[int, int, int], Cost]
"""``model(batch, dim, views)`` -> exact counts of one evaluation."""

Hyperparameters = TypeVar("Hyperparameters", bound=type)
Function = TypeVar("Function", bound=Callable[..., Any])
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class LossSpec:
    """Everything known about a loss.

    Attributes:
        name: the one name used in code, docs and tables.
        title: the name people read.
        source: the paper or code that the formula is taken from.
        family: what the loss compares.
        hyperparameters: frozen dataclass of its hyperparameters, defaults as published.
        gather_layer: under data parallelism the official code needs other devices' embeddings.
        global_batch_norm: the official code standardises over the batch of all devices.
        communicated_bytes: what each device communicates in the official data-parallel code.
        many_views: more than two views are accepted.
        implementations: name -> function that computes the weighted terms.
        cost_models: name of implementation -> its counts.
    """

    name: str
    title: str
    source: str
    family: str
    hyperparameters: type
    gather_layer: bool
    global_batch_norm: bool
    communicated_bytes: Callable[[Exchange], int]
    many_views: bool = False
    implementations: dict[str, Compute] = field(default_factory=dict, repr=False)
    cost_models: dict[str, CostModel] = field(default_factory=dict, repr=False)

    def cost(self, implementation: str, batch: int, dim: int, views: int = 2) -> Cost:
        """Exact counts of one evaluation of ``implementation`` on ``views`` views of N x D."""
        pick(f"implementation of {self.name}", implementation, self.implementations)
        if views != 2 and not (self.many_views and views > 2):
            raise ValueError(f"{self.name} is not defined for {views} views")
        return self.cost_models[implementation](batch, dim, views)

    def configure(self, **hyperparameters: Any) -> Any:
        """Build the hyperparameter dataclass.

        Raises:
            ValueError: an unknown hyperparameter, or a value it does not accept.
        """
        known = [f.name for f in dataclasses.fields(self.hyperparameters)]
        for name in hyperparameters:
            pick(f"hyperparameter of {self.name}", name, known)
        return self.hyperparameters(**hyperparameters)


_SPECS: dict[str, LossSpec] = {}


def register(name: str, **facts: Any) -> Callable[[Hyperparameters], Hyperparameters]:
    """Class decorator: register a loss under the hyperparameter dataclass it decorates.

    Args:
        name: name of the loss.
        **facts: the remaining attributes of ``LossSpec``.
    """

    def decorate(hyperparameters: Hyperparameters) -> Hyperparameters:
        _enter(_SPECS, name, LossSpec(name=name, hyperparameters=hyperparameters, **facts))
        return hyperparameters

    return decorate


def implementation(loss: str, name: str) -> Callable[[Function], Function]:
    """Decorator: register a ``Compute`` function as implementation ``name`` of ``loss``."""
    return lambda function: _enter(_SPECS[loss].implementations, name, function)


def cost_model(loss: str, name: str) -> Callable[[Function], Function]:
    """Decorator: register a ``CostModel`` function for implementation ``name`` of ``loss``."""
    return lambda function: _enter(_SPECS[loss].cost_models, name, function)


def _enter(table: dict[str, Any], name: str, entry: Entry) -> Entry:
    if name in table:
        raise ValueError(f"{name!r} is registered already")
    table[name] = entry
    return entry


def names() -> tuple[str, ...]:
    """Names of all losses, in alphabetical order."""
    return tuple(sorted(_SPECS))


def spec(name: str) -> LossSpec:
    """Everything known about one loss.

    Raises:
        ValueError: unknown name; the known ones are listed.
    """
    return _SPECS[pick("loss", name, _SPECS)]


def create(name: str, implementation: str = "reference", **hyperparameters: Any) -> Loss:
    """Build a loss.

    Args:
        name: one of ``names()``.
        implementation: one of ``spec(name).implementations``.
        **hyperparameters: fields of ``spec(name).hyperparameters``.

    Returns:
        A module: ``loss(z_a, z_b)`` is a scalar, ``loss.terms(z_a, z_b)`` its weighted parts.

    Raises:
        ValueError: an unknown name, or a value that a hyperparameter does not accept.
    """
    chosen = spec(name)
    pick(f"implementation of {name}", implementation, chosen.implementations)
    return Loss(
        name=name,
        implementation=implementation,
        compute=chosen.implementations[implementation],
        hyperparameters=chosen.configure(**hyperparameters),
        many_views=chosen.many_views,
    )
