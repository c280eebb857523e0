"""When two computations of a loss agree: what rounding explains, and no more.

Where a loss is well-conditioned, two implementations agree to a few ulp. Where it is not, none is
right to the last digits, the reference included: two features leave nothing but rho = +-1, where
dI/drho is 1 / eps; aligned views leave an NT-Xent of 1e-9, the difference of numbers of size 1 / T.
So an error may be as large as

    TOLERANCE x |truth| + SLACK x noise

with the reference in fp64 as truth, and as noise what the reference cannot help either:

* its own error in the dtype;
* how far it moves when the inputs move by one ulp, the least that rounding does;
* one ulp of what the loss adds up before most of it cancels (``before_cancellation``). Moving the
  inputs does not show it where they hardly matter: with two features, or two samples, every
  standardised entry is +-1 or +-0.7, and the gradient is 0 because its parts cancel.

Of a well-conditioned batch the noise is below the tolerance: see ``test_rule_is_strict``.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from lossbench import losses

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
SLACK = 8
MOVES = 3
"""How often the inputs are moved by one ulp."""

Outcome = dict[str, Tensor]


def outcome(loss: losses.Loss, views: Sequence[Tensor]) -> Outcome:
    """Value and terms of a loss, and the gradient of each for all views, in fp64."""
    leaves = [view.detach().clone().requires_grad_() for view in views]
    roots = {"value": loss(*leaves), **loss.terms(*leaves)}
    found = {name: root.detach().double() for name, root in roots.items()}
    for name, root in roots.items():
        parts = torch.autograd.grad(root, leaves, retain_graph=True, materialize_grads=True)
        found[f"gradient of {name}"] = torch.stack(parts).double()
    return found


def permitted_errors(
    reference: losses.Loss, views: Sequence[Tensor]
) -> tuple[Outcome, dict[str, float]]:
    """The truth about ``views``, and how far from it a computation in their dtype may be."""
    dtype = views[0].dtype
    truth = outcome(reference, [view.double() for view in views])
    here = outcome(reference, views)
    moved = [outcome(reference, _moved(views, seed)) for seed in range(MOVES)]
    with before_cancellation(dtype):
        large = outcome(reference, views)
    permitted = {}
    for name, expected in truth.items():
        noise = _distance(here[name], expected)
        noise += max(_distance(each[name], here[name]) for each in moved)
        noise += torch.finfo(dtype).eps * _size(name, large, views)
        permitted[name] = TOLERANCE[dtype] * _length(expected) + SLACK * noise
    return truth, permitted


def assert_close_to(truth: Outcome, permitted: dict[str, float], found: Outcome) -> None:
    """Every value and gradient is there, and as near to the truth as it must be."""
    assert found.keys() == truth.keys()
    for name, expected in truth.items():
        error = _distance(found[name], expected)
        message = f"{name} is {error:.3g} off, {permitted[name]:.3g} is permitted"
        assert error <= permitted[name], f"{message}; truth {_length(expected):.6g}"


def _moved(views: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Every entry an ulp up or down; zeros, and what makes a row constant, are kept."""
    generator = torch.Generator().manual_seed(seed)

    def move(view: Tensor) -> Tensor:
        up = torch.rand(view.shape, generator=generator) < 0.5
        constant = (view == view[:, :1]).all(dim=1, keepdim=True)
        up = torch.where(constant, up[:, :1], up)
        moved = torch.nextafter(view, torch.where(up, torch.inf, -torch.inf).to(view))
        return torch.where(view == 0, view, moved)

    return [move(view) for view in views]


def _size(name: str, large: Outcome, views: Sequence[Tensor]) -> float:
    """What an ulp is taken of: of a gradient its size, of a value also what its inputs move."""
    if name.startswith("gradient of"):
        return _length(large[name])
    inputs = _length(torch.stack(list(views)).double())
    return _length(large[name]) + _length(large[f"gradient of {name}"]) * inputs


def _length(tensor: Tensor) -> float:
    return torch.linalg.vector_norm(tensor).item()


def _distance(one: Tensor, other: Tensor) -> float:
    return _length(one - other)


@contextmanager
def before_cancellation(dtype: torch.dtype) -> Iterator[None]:
    """Inside, the reference keeps what it otherwise subtracts, which gives the sizes of the parts.

    Norms, means and deviations count as constants, so that the parts of a gradient along them
    stay. rho ends just short of 1, beyond which it has no gradient. The diagonal of C and Cov,
    which a Gram form subtracts, stays in; the positive of a cross-entropy is not subtracted.
    """
    short_of_one = 1 - 4 * torch.finfo(dtype).eps

    def unit_rows(z: Tensor, zero_at: Tensor | float = 0.0) -> Tensor:
        norm = torch.linalg.vector_norm(z, dim=1, keepdim=True).detach()
        zero = norm <= zero_at
        return (short_of_one * z / norm.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)

    def standardised(hp: Any, *views: Tensor) -> list[Tensor]:
        variances = [view.var(dim=0, correction=0).detach() for view in views]
        pairs = zip(views, variances, strict=True)
        return [(view - view.mean(dim=0).detach()) / (var + hp.eps).sqrt() for view, var in pairs]

    replaced: dict[str, Callable] = {
        "lossbench.losses.smi.unit_rows": unit_rows,
        "lossbench.losses.nt_xent.unit_rows": unit_rows,
        "lossbench.losses.nt_xent.functional.cross_entropy": lambda s, positive: s.logsumexp(
            1
        ).mean(),
        "lossbench.losses.barlow_twins._standardised": standardised,
        "lossbench.losses.barlow_twins.off_diagonal": lambda matrix: matrix,
        "lossbench.losses.vicreg.off_diagonal": lambda matrix: matrix,
    }
    with ExitStack() as stack:
        for name, function in replaced.items():
            stack.enter_context(mock.patch(name, function))
        yield
