"""How code that is not ours behaves, and what it equals, tried on small inputs.

It must return a scalar of all its inputs, the same twice, and leave the inputs untouched. A
contender must equal its loss up to a constant factor, in value and gradient; the gradient of a
guest must be that of its value.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lossbench import losses
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.contenders import Loss, guest, in_fp64, own_reference, specification
from lossbench.bench.cases.inputs import draw, make_inputs
from lossbench.bench.records.failures import MisbehaviourError
from lossbench.losses import outside

PARITY_ROWS = 64
PARITY_KINDS = ("random", "digits")
PARITY = {"float64": 1e-6, "float32": 1e-4, "bfloat16": 2e-2, "float16": 5e-3}
"""Relative spread of value and gradient over ours, up to which the ratio is one constant."""
GRADIENT = 1e-3
"""Error of a guest's gradient against finite differences, relative to its length ..."""
DIRECTIONS, STEP, SEED = 4, 1e-5, 1
"""... along as many directions for each input that is trained, by steps of this many deviations of
its entries."""
UNTRAINED = (
    "; if it is never to have one, declare it as a teacher by an attribute inputs of the loss"
)
NEEDS_FP64 = (
    "cannot be checked in fp64 (give it an attribute reference, a function that can, and that it "
    "must equal)"
)
VIEWS = ("first view", "second view")
DRAWS = 3
"""Other values of an input that must all leave the value as it is, if the input is ignored."""


def examine(case: Case, loss: Loss) -> dict[str, Any]:
    """Check how a contender or a guest behaves, and what it equals.

    Returns:
        ``scale``, by which it differs from ours, and ``parity`` in words.

    Raises:
        MisbehaviourError: what is wrong, in one line.
    """
    is_reference = not case.contender and case.implementation == "reference"
    alone = is_reference and not losses.spec(case.loss).is_ours and not own_reference(case)
    try:
        return _alone(case, loss) if alone else _parity(case, loss)
    except MisbehaviourError as problem:
        name = case.name if alone else case.implementation
        raise MisbehaviourError(f"{name} {problem}") from None
    except outside.NotScalarError as problem:
        raise MisbehaviourError(str(problem)) from None


def _alone(case: Case, loss: Loss) -> dict[str, Any]:
    """Of a loss that nothing is known of: it behaves, and its gradient is that of its value."""
    for example in _examples(case):
        _check_behaviour(loss, example)
        _differentiate(loss, example, UNTRAINED)
    if losses.spec(case.loss).origin and getattr(guest(case), "stops_gradient", False):
        return {"scale": 1.0, "parity": "a loss of its own that stops gradients: unchecked"}
    for example in _examples(case):
        for name, error in _gradient_errors(loss, example).items():
            if not error <= GRADIENT:
                raise MisbehaviourError(
                    f"has a gradient for its {name} that is {error:.2g} of its length off finite "
                    "differences of its value; if it stops gradients on purpose, give it an "
                    "attribute stops_gradient = True"
                )
    return {"scale": 1.0, "parity": "a loss of its own: its gradient is that of its value"}


@dataclass(frozen=True)
class _Example:
    """Small inputs that a loss is tried on.

    Attributes:
        inputs: in order.
        given: what they are.
        names: what people call them.
    """

    inputs: tuple[Tensor, ...]
    given: tuple[losses.Input, ...]
    names: tuple[str, ...]

    @property
    def students(self) -> list[int]:
        """Places of those that are trained."""
        return [place for place, each in enumerate(self.given) if each.is_trained]

    def wide(self) -> "_Example":
        """The same in fp64."""
        widened = (
            tensor.double() if each.is_embedding else tensor
            for tensor, each in zip(self.inputs, self.given, strict=True)
        )
        return replace(self, inputs=tuple(widened))

    def changed(self, place: int) -> Iterator[tuple[Tensor, ...]]:
        """Its inputs, one of them drawn anew."""
        tensor = self.inputs[place]
        generator = torch.Generator(tensor.device).manual_seed(SEED + 1)
        for _ in range(DRAWS):
            yield self.with_input(place, draw(self.given[place], generator).to(tensor.dtype))

    def with_input(self, place: int, tensor: Tensor) -> tuple[Tensor, ...]:
        """Its inputs, one of them another."""
        return (*self.inputs[:place], tensor, *self.inputs[place + 1 :])


def _examples(case: Case) -> Iterator[_Example]:
    small = replace(case, batch=min(case.loss_batch, PARITY_ROWS), world=1, distribution="local")
    for kind in PARITY_KINDS:
        of_kind = replace(small, inputs=kind)
        names = [f"input {each.name}" for each in of_kind.given]
        yield _Example(
            make_inputs(of_kind), of_kind.given, VIEWS if case.has_views else tuple(names)
        )


def _gradient_errors(loss: Loss, example: _Example) -> dict[str, float]:
    """Of each gradient in fp64 along random directions, against differences of the value."""
    wide, loss = example.wide(), in_fp64(loss)
    try:
        _, gradients = _differentiate(loss, wide)
        value = loss(*wide.inputs)
    except MisbehaviourError:
        raise
    except Exception as error:  # whatever code raises that was written for fp32 alone
        raise MisbehaviourError(f"{NEEDS_FP64}: {type(error).__name__}: {error}") from error
    if value.dtype != torch.float64:
        raise MisbehaviourError(f"{NEEDS_FP64}: it returns {value.dtype}")
    generator = torch.Generator(value.device).manual_seed(SEED)
    errors = {}
    for place, gradient in zip(wide.students, gradients, strict=True):
        student, off, size = wide.inputs[place], 0.0, 0.0
        for _ in range(DIRECTIONS):
            direction = torch.empty_like(student).normal_(generator=generator)
            step = STEP * student.std() * direction
            ends = [loss(*wide.with_input(place, student + sign * step)) for sign in (1, -1)]
            along = (gradient * step).sum().item()
            difference = ((ends[0] - ends[1]) / 2).item()
            off, size = off + (along - difference) ** 2, size + difference**2
        errors[wide.names[place]] = math.sqrt(off / size) if size else math.inf
    return errors


def _parity(case: Case, loss: Loss) -> dict[str, Any]:
    expected = specification(case)
    ratios = []
    for example in _examples(case):
        _check_behaviour(loss, example)
        ratios += _ratios(loss, expected, example)
    scale = sorted(ratios)[len(ratios) // 2]
    spread = max(abs(ratio - scale) for ratio in ratios)
    allowed = PARITY[case.dtype]
    other = not isinstance(expected, losses.Loss)
    if not spread <= allowed * abs(scale):
        low, high = min(ratios), max(ratios)
        raise MisbehaviourError(
            f"is not {'its reference' if other else case.name}: "
            f"value and gradient are {low:.4g} to {high:.4g} times {'its' if other else 'ours'}"
        )
    if other:
        return {"scale": scale, "parity": "another loss: equals its own reference"}
    if abs(scale - 1) <= allowed:
        return {"scale": 1.0, "parity": "equals ours"}
    return {"scale": scale, "parity": f"equals {scale:.4g} x ours"}


def _check_behaviour(loss: Loss, example: _Example) -> None:
    inputs = example.inputs
    copies = [each.clone() for each in inputs]
    value = loss(*inputs)
    if not isinstance(value, Tensor) or value.numel() != 1 or value.ndim:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise MisbehaviourError(f"returns {got}, not a scalar tensor")
    for name, tensor, copy in zip(example.names, inputs, copies, strict=True):
        if not torch.equal(tensor, copy):
            raise MisbehaviourError(f"changes its {name} in place")
    if not value.isfinite():
        raise MisbehaviourError(f"returns {value.item()} for ordinary inputs")
    again = loss(*inputs)
    if abs(again.item() - value.item()) > 1e-6 * abs(value.item()):
        raise MisbehaviourError(
            f"is not deterministic: {value.item():.6g}, then {again.item():.6g} on equal inputs"
        )
    for place, name in enumerate(example.names):
        others = (loss(*changed).item() for changed in example.changed(place))
        if all(other == value.item() for other in others):
            raise MisbehaviourError(f"ignores its {name}")


def _ratios(loss: Loss, reference: Loss, example: _Example) -> list[float]:
    """Value over the fp64 value, and gradient over that with what lies beside, for each of them."""
    value, gradients = _differentiate(loss, example)
    truth, expected = _differentiate(in_fp64(reference), example.wide())
    ratios = [value / truth]
    for gradient, g in zip(gradients, expected, strict=True):
        gradient = gradient.double()
        along = ((gradient * g).sum() / g.square().sum()).item()
        beside = (torch.linalg.vector_norm(gradient - along * g) / g.norm()).item()
        ratios += [along - beside, along + beside]
    return ratios


def _differentiate(loss: Loss, example: _Example, hint: str = "") -> tuple[float, list[Tensor]]:
    """The value, and the gradients of what is trained; the hint is for who has none of them."""
    leaves = [each.detach().clone() for each in example.inputs]
    students = [leaves[place].requires_grad_() for place in example.students]
    value = loss(*leaves)
    if not value.requires_grad:
        raise MisbehaviourError("returns a value that cannot be differentiated")
    gradients = torch.autograd.grad(value, students, allow_unused=True)
    for place, gradient in zip(example.students, gradients, strict=True):
        if gradient is None:
            raise MisbehaviourError(f"has no gradient for its {example.names[place]}{hint}")
    return value.item(), [gradient for gradient in gradients if gradient is not None]
