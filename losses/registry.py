"""The registry of losses: a loss is a name, hyperparameters, implementations and cost models.

A loss file registers itself with three decorators: ``register`` on its hyperparameter dataclass,
``implementation`` on each way to compute it, ``cost_model`` on each way's counts. Two
implementations come by themselves: ``compiled`` with the reference, and ``auto`` with the loss.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from lossbench.losses import auto, outside
from lossbench.losses.autograd import needs_gradient
from lossbench.losses.compiled import Compiled
from lossbench.losses.costs import Cost, Exchange, Problem, no_exchange
from lossbench.losses.inputs import Input, is_two_views, views
from lossbench.losses.loss import Loss
from lossbench.losses.naming import pick

Compute = Callable[..., dict[str, Tensor]]
"""``compute(hyperparameters, *inputs)`` -> weighted terms that add up to the loss.

Keyword-only parameters are options of the implementation; its cost model takes them too.
"""
CostModel = Callable[..., Cost]
"""``model(problem)`` -> exact counts of one evaluation."""

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
        inputs: ``inputs(hyperparameters)`` says what it is given, see ``losses.Input``; of most
            losses, views, nothing is said.
        implementations: name -> function that computes the weighted terms.
        cost_models: name of implementation -> its counts.
        fused: names of implementations by fused kernels: they take embeddings of 16 bits as they
            are, and run on some devices only.
        origin: of a guest (see ``losses.outside``): where it is found, else "".
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
    inputs: Callable[[Any], Iterable[Input] | None] | None = None
    implementations: dict[str, Compute] = field(default_factory=dict, repr=False)
    cost_models: dict[str, CostModel] = field(default_factory=dict, repr=False)
    fused: set[str] = field(default_factory=set, repr=False)
    origin: str = ""

    def cost(self, implementation: str, problem: Problem, **options: Any) -> Cost:
        """Exact counts of one evaluation of ``implementation``.

        Args:
            implementation: one of ``implementations``, but ``auto``.
            problem: the batch.
            **options: of the implementation.
        """
        pick(f"implementation of {self.name} with a cost model", implementation, self.cost_models)
        if problem.views != 2 and not (self.many_views and problem.views > 2):
            raise ValueError(f"{self.name} is not defined for {problem.views} views")
        return self.cost_models[implementation](problem, **options)

    def declared(self, hyperparameters: Any) -> tuple[Input, ...] | None:
        """What it is given, if that is not two (or more) views. A guest is looked for.

        Raises:
            ValueError: a guest that is not there, or that declares what is not understood.
        """
        return _unusual(self.inputs(hyperparameters) if self.inputs else None)

    def given(self, hyperparameters: Any, problem: Problem) -> tuple[Input, ...]:
        """What it is given of a batch, with shapes in numbers; raises as ``declared`` does."""
        found = self.declared(hyperparameters) or views(problem.views)
        return tuple(each.of(problem) for each in found)

    @property
    def is_ours(self) -> bool:
        """Whether this project says what the loss is."""
        return not self.origin and _is_ours(self.hyperparameters)

    def modules(self, implementation: str) -> set[str]:
        """Modules outside this project whose code decides what an implementation computes."""
        names = self.implementations if implementation == "auto" else [implementation]
        made_by = [self.implementations[name] for name in names if name in self.implementations]
        several = () if self.origin else (self.hyperparameters, *made_by)
        return {each.__module__ for each in several if not _is_ours(each)}

    def estimate(self, problem: Problem) -> Cost:
        """What to plan by where an implementation has no cost model.

        Returns:
            The reference's counts; of a loss without any, those of a Gram matrix of each view.
        """
        if "reference" in self.cost_models:
            return self.cost("reference", problem)
        n, d, v = problem.batch, problem.dim, problem.views
        forward = v * n * n * d
        return Cost(forward, 2 * forward, 0, v * (n * n + n * d))

    def options(self, implementation: str) -> tuple[str, ...]:
        """Names of the options that an implementation has beside the loss's hyperparameters."""
        pick(f"implementation of {self.name}", implementation, self.implementations)
        parameters = inspect.signature(self.implementations[implementation]).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

    def configure(self, **hyperparameters: Any) -> Any:
        """Build the hyperparameter dataclass.

        Raises:
            ValueError: an unknown hyperparameter, or a value it does not accept.
        """
        known = [f.name for f in dataclasses.fields(self.hyperparameters)]
        for name in hyperparameters:
            pick(f"hyperparameter of {self.name}", name, known)
        return self.hyperparameters(**hyperparameters)


def _unusual(inputs: Iterable[Input] | None) -> tuple[Input, ...] | None:
    """Inputs that are not two views."""
    found = None if inputs is None else tuple(inputs)
    return None if found is None or is_two_views(found) else found


_SPECS: dict[str, LossSpec] = {}


def register(name: str, **facts: Any) -> Callable[[Hyperparameters], Hyperparameters]:
    """Class decorator: register a loss under the hyperparameter dataclass it decorates.

    Args:
        name: name of the loss.
        **facts: the remaining attributes of ``LossSpec``.
    """

    def decorate(hyperparameters: Hyperparameters) -> Hyperparameters:
        _enter(_SPECS, name, LossSpec(name=name, hyperparameters=hyperparameters, **facts))
        _enter(_SPECS[name].implementations, "auto", _Auto(name))
        return hyperparameters

    return decorate


def implementation(loss: str, name: str, fused: bool = False) -> Callable[[Function], Function]:
    """Decorator: register a ``Compute`` function as implementation ``name`` of ``loss``.

    Args:
        loss: name of the loss.
        name: name of the implementation.
        fused: see ``LossSpec.fused``; the others get embeddings of 16 bits in fp32.
    """

    def decorate(function: Function) -> Function:
        if fused:
            _SPECS[loss].fused.add(name)
        if name == "reference":
            _enter(_SPECS[loss].implementations, "compiled", Compiled(function))
        return _enter(_SPECS[loss].implementations, name, function)

    return decorate


def cost_model(loss: str, name: str) -> Callable[[Function], Function]:
    """Decorator: register a ``CostModel`` function for implementation ``name`` of ``loss``."""

    def decorate(function: Function) -> Function:
        if name == "reference":
            _enter(_SPECS[loss].cost_models, "compiled", lambda problem, mode="": function(problem))
        return _enter(_SPECS[loss].cost_models, name, function)

    return decorate


def _is_ours(made: Any) -> bool:
    return bool(made.__module__.partition(".")[0] == "lossbench")


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

    Args:
        name: one of ``names()``, or a guest: ``mine=package.module:attribute?key=value``. It is
            looked for when it is created; its keys are its hyperparameters.

    Raises:
        ValueError: unknown name; the known ones are listed. Or a guest of another form.
    """
    return _guest(name) if "=" in name else _SPECS[pick("loss", name, _SPECS)]


@cache
def _guest(text: str) -> LossSpec:
    name, _, target = text.partition("=")
    if not name.isidentifier():
        raise ValueError(f"a loss of your own is NAME={outside.FORM}, got {text!r}")
    if name in _SPECS:
        raise ValueError(f"loss {text}: there is a loss {name!r} here; give yours another name")
    path, keys = outside.split(target, f"loss {name}")
    fields = [(key, Any, field(default=value)) for key, value in keys.items()]
    reference = outside.Guest(name, path)
    return LossSpec(
        name=name,
        title=name,
        source=path,
        family="guest",
        hyperparameters=dataclasses.make_dataclass("Keys", fields, frozen=True),
        gather_layer=False,
        global_batch_norm=False,
        communicated_bytes=no_exchange,
        inputs=reference.inputs,
        implementations={
            "auto": outside.AutoGuest(name, path),
            "compiled": outside.Guest(name, path, compiled=True),
            "reference": reference,
        },
        origin=path,
    )


def create(name: str, implementation: str = "reference", **settings: Any) -> Loss:
    """Build a loss.

    Args:
        name: one of ``names()``.
        implementation: one of ``spec(name).implementations``.
        **settings: fields of ``spec(name).hyperparameters``, and options of the implementation.

    Returns:
        A module: ``loss(*inputs)`` is a scalar, ``loss.terms(*inputs)`` its weighted parts. The
        inputs of most losses are two views, ``loss(z_a, z_b)``.

    Raises:
        ValueError: an unknown name, or a value that a hyperparameter does not accept.
    """
    chosen = spec(name)
    options = {k: settings.pop(k) for k in chosen.options(implementation) if k in settings}
    compute = chosen.implementations[implementation]
    hyperparameters = chosen.configure(**settings)
    if isinstance(compute, outside.Guest):
        compute = compute.make(dataclasses.asdict(hyperparameters))
        declared = _unusual(compute.inputs)
    else:
        declared = chosen.declared(hyperparameters)
    return Loss(
        name=chosen.name,
        implementation=implementation,
        compute=partial(compute, **options) if options else compute,
        hyperparameters=hyperparameters,
        many_views=chosen.many_views,
        widen=implementation not in chosen.fused,
        declared=declared,
    )


def explain(
    name: str,
    *,
    batch: int,
    dim: int,
    views: int = 2,
    pass_: str = "step",
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    memory_bytes: int | None = None,
) -> auto.Choice:
    """What ``implementation="auto"`` runs for a batch, and why.

    Args:
        name: one of ``names()``.
        batch: samples, N.
        dim: embedding dimension, D.
        views: number of views, V.
        pass_: one of ``PASSES``.
        dtype: of the embeddings.
        device: where they are; asked for its free memory.
        memory_bytes: memory that may be used; default: what is free.

    Returns:
        The choice: ``print`` it to see what was weighed.
    """
    element_bytes = torch.promote_types(dtype, torch.float32).itemsize
    problem = Problem(batch, dim, views, element_bytes, torch.device(device).type)
    if memory_bytes is None:
        weighs = bool(spec(name).cost_models)
        memory_bytes = auto.free_bytes(torch.device(device)) if weighs else 0
    return _choose(spec(name), problem, pass_, memory_bytes)


def _choose(spec: LossSpec, problem: Problem, pass_: str, memory_bytes: int) -> auto.Choice:
    if not spec.cost_models:
        return auto.Choice("reference", f"{spec.name} has no cost models to weigh", ())
    unfit = {*spec.fused, *(() if auto.can_compile() else ("compiled",))}
    names = (name for name in spec.cost_models if name not in unfit)
    costs = {name: spec.cost(name, problem) for name in names}
    return auto.choose(costs, problem, pass_, memory_bytes)


class _Auto:
    """The implementation that ``explain`` names, decided once for each kind of input."""

    def __init__(self, loss: str) -> None:
        self._loss = loss

    def __call__(
        self, hyperparameters: Any, *views: Tensor, memory_bytes: int | None = None
    ) -> dict[str, Tensor]:
        """The weighted terms of the loss."""
        first = views[0]
        batch, dim = (int(length) for length in first.shape)  # tensors while it is traced
        seen = (batch, dim, len(views), first.element_size(), first.device)
        pass_ = "step" if needs_gradient(*views) else "forward"
        return _decide(self._loss, *seen, pass_, memory_bytes)(hyperparameters, *views)


@cache
def _decide(
    loss: str,
    batch: int,
    dim: int,
    views: int,
    element_bytes: int,
    device: torch.device,
    pass_: str,
    memory_bytes: int | None,
) -> Compute:
    """What ``auto`` runs; small batches would notice the time that deciding takes."""
    problem = Problem(batch, dim, views, element_bytes, device.type)
    memory_bytes = auto.free_bytes(device) if memory_bytes is None else memory_bytes
    chosen = _choose(spec(loss), problem, pass_, memory_bytes)
    return spec(loss).implementations[chosen.implementation]
