"""Third-party losses, benchmarked beside ours as implementations of a loss we know.

A contender is any callable or ``nn.Module`` of two tensors. Before it is measured it must show that
it behaves (a scalar of both views, the same twice, inputs untouched) and that it is the named loss,
up to a constant factor, which is reported. One that is there to be timed beside another loss says
with an attribute ``reference`` what it must equal instead.
"""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from torch import Tensor

from lossbench import losses
from lossbench.bench.cases.case import Case
from lossbench.bench.records.failures import MisbehaviourError

PARITY_ROWS = 64
PARITY_KINDS = ("random", "digits")
PARITY = {"float64": 1e-6, "float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}
"""Relative spread of value and gradient over ours, up to which the ratio is one constant."""
VIEWS = ("first", "second")
Loss = Callable[[Tensor, Tensor], Tensor]


def make_cases(text: str, cases: Sequence[Case]) -> list[Case]:
    """The cases of a contender: each of ours of its loss, as published, computed its way.

    Args:
        text: ``NAME=package.module:attribute[?key=value]``. NAME is ``loss`` or ``loss.label``, or
            a label alone where only one loss is chosen.
        cases: what else is measured.

    Raises:
        ValueError: text of another form, a loss that is not chosen, or an attribute that is not
            there.
    """
    name, equals, target = text.partition("=")
    if not (name and equals and target):
        raise ValueError(f"--contender needs NAME=package.module:attribute, got {text!r}")
    chosen = list(dict.fromkeys(case.loss for case in cases))
    loss, _, label = name.partition(".")
    if loss not in losses.names() and len(chosen) == 1 and not label:
        loss, label = chosen[0], name
    losses.pick("loss", loss, losses.names())
    if loss not in chosen:
        raise ValueError(f"--contender {name}: {loss!r} is not among the chosen losses")
    label = label or target.partition(".")[0].partition(":")[0]
    if label in losses.spec(loss).implementations:
        raise ValueError(f"--contender {name}: {loss} has an implementation {label!r}; rename it")
    if any((case.loss, case.implementation) == (loss, label) for case in cases):
        raise ValueError(f"--contender {name}: there is another one of that name; rename it")
    resolve(target)
    rows = (
        replace(case, implementation=label, contender=target, options={})
        for case in cases
        if case.loss == loss and not case.contender and not case.hyperparameters
    )
    unique = {tuple(sorted(row.describe().items())): row for row in rows}
    return list(unique.values())


def resolve(target: str) -> Loss:
    """The loss that ``package.module:attribute?key=value`` names.

    A class is called with the keys (without any where there are none), and so is any other callable
    that is given keys; a value ``module:attribute(key=value)`` is called first. Where there is a
    parameter ``ref_emb``, the second view is passed as that (pytorch-metric-learning's convention).

    Raises:
        ValueError: not of this form, not there, or not callable.
    """
    path, _, query = target.partition("?")
    module, colon, attribute = path.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"a contender is package.module:attribute[?key=value], got {target!r}")
    found = _find(module, attribute)
    pairs = parse_qsl(query, keep_blank_values=True)
    if inspect.isclass(found) or pairs:
        try:
            found = found(**{key: _value(value) for key, value in pairs})
        except Exception as error:
            raise ValueError(f"contender {target} cannot be made: {error}") from error
    if not callable(found):
        raise ValueError(f"{path} is not callable")
    return _of_two_views(found)


def specification(case: Case) -> Loss:
    """What the value of a case must equal: the loss's reference, or what a contender brings."""
    own = getattr(resolve(case.contender), "reference", None) if case.contender else None
    return own or losses.create(case.loss, **case.hyperparameters)


def identity(target: str) -> str:
    """What a contender's record depends on: where it is found, its version and its source files."""
    module = importlib.import_module(target.partition(":")[0].partition(".")[0])
    folders = [Path(folder) for folder in getattr(module, "__path__", [])]
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    digest = hashlib.sha256(f"{target} {version(target)}".encode())
    for file in files or [Path(module.__file__ or "")]:
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()[:16]


def version(target: str) -> str | None:
    """Version of the distribution that a contender's module is installed by, if it is."""
    package = target.partition(":")[0].partition(".")[0]
    names = metadata.packages_distributions().get(package)
    return metadata.version(names[0]) if names else None


def _find(module: str, attribute: str) -> Any:
    if "" not in sys.path:
        sys.path.insert(0, "")  # the user's own files, as python -m would find them
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's module raises
        raise ValueError(f"contender module {module} cannot be imported: {error}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            losses.pick(f"attribute of {module}", name, [n for n in dir(found) if n[0] != "_"])
        found = getattr(found, name)
    return found


def _value(text: str) -> Any:
    """A number, true, false, none, ``module:attribute(key=value,...)``, or else the text."""
    path, opening, arguments = text.removesuffix(")").partition("(")
    if ":" in path:
        pairs = (part.partition("=") for part in arguments.split(",") if opening and part)
        return _find(*path.split(":", 1))(**{key: _value(value) for key, _, value in pairs})
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _of_two_views(found: Callable[..., Tensor]) -> Loss:
    called = found.forward if isinstance(found, torch.nn.Module) else found
    try:
        named = "ref_emb" in inspect.signature(called).parameters
    except (TypeError, ValueError):  # built in
        named = False
    return (lambda z_a, z_b: found(z_a, ref_emb=z_b)) if named else found


def examine(case: Case, loss: Loss) -> dict[str, Any]:
    """Check how a contender behaves, and what it equals.

    Returns:
        ``scale``, by which it differs from ours, and ``parity`` in words.

    Raises:
        MisbehaviourError: what is wrong, in one line.
    """
    try:
        return _parity(case, loss)
    except MisbehaviourError as problem:
        raise MisbehaviourError(f"{case.implementation} {problem}") from None


def _parity(case: Case, loss: Loss) -> dict[str, Any]:
    from lossbench.bench.cases.inputs import make_views

    small = replace(case, batch=min(case.loss_batch, PARITY_ROWS), world=1, distribution="local")
    expected = specification(case)
    ratios = []
    for kind in PARITY_KINDS:
        views = make_views(replace(small, inputs=kind))
        _check_behaviour(loss, views)
        ratios += _ratios(loss, expected, views)
    scale = sorted(ratios)[len(ratios) // 2]
    spread = max(abs(ratio - scale) for ratio in ratios)
    allowed = PARITY[case.dtype]
    other = not isinstance(expected, losses.Loss)
    if not spread <= allowed * abs(scale):
        low, high = min(ratios), max(ratios)
        raise MisbehaviourError(
            f"is not {'its reference' if other else case.loss}: "
            f"value and gradient are {low:.4g} to {high:.4g} times {'its' if other else 'ours'}"
        )
    if other:
        return {"scale": scale, "parity": "another loss: equals its own reference"}
    if abs(scale - 1) <= allowed:
        return {"scale": 1.0, "parity": "equals ours"}
    return {"scale": scale, "parity": f"equals {scale:.4g} x ours"}


def _check_behaviour(loss: Loss, views: tuple[Tensor, ...]) -> None:
    copies = [view.clone() for view in views]
    value = loss(*views)
    if not isinstance(value, Tensor) or value.numel() != 1 or value.ndim:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise MisbehaviourError(f"returns {got}, not a scalar tensor")
    for name, view, copy in zip(VIEWS, views, copies, strict=True):
        if not torch.equal(view, copy):
            raise MisbehaviourError(f"changes its {name} input in place")
    again = loss(*views)
    if abs(again.item() - value.item()) > 1e-6 * abs(value.item()):
        raise MisbehaviourError(
            f"is not deterministic: {value.item():.6g}, then {again.item():.6g} on equal inputs"
        )
    for index, name in enumerate(VIEWS):
        changed = [
            view.roll(1, dims=0) * 1.5 if index == i else view for i, view in enumerate(views)
        ]
        if loss(*changed).item() == value.item():
            raise MisbehaviourError(f"ignores its {name} view")


def _ratios(loss: Loss, reference: Loss, views: tuple[Tensor, ...]) -> list[float]:
    """Value over the fp64 value, and gradient over that with what lies beside, for each view."""
    value, gradients = _differentiate(loss, views)
    truth, expected = _differentiate(reference, tuple(view.double() for view in views))
    ratios = [value / truth]
    for gradient, g in zip(gradients, expected, strict=True):
        gradient = gradient.double()
        along = ((gradient * g).sum() / g.square().sum()).item()
        beside = (torch.linalg.vector_norm(gradient - along * g) / g.norm()).item()
        ratios += [along - beside, along + beside]
    return ratios


def _differentiate(loss: Loss, views: tuple[Tensor, ...]) -> tuple[float, list[Tensor]]:
    leaves = [view.detach().clone().requires_grad_() for view in views]
    value = loss(*leaves)
    if not value.requires_grad:
        raise MisbehaviourError("returns a value that cannot be differentiated")
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    for name, gradient in zip(VIEWS, gradients, strict=True):
        if gradient is None:
            raise MisbehaviourError(f"has no gradient for its {name} view")
    return value.item(), [gradient for gradient in gradients if gradient is not None]
