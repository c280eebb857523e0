"""What a loss is given: two views, or what it declares."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lossbench.losses.costs import Problem

ROLES = ("student", "teacher", "target", "mask", "index")
"""Of an input: a student gets a gradient; a teacher and a target, which are embeddings too, never
do; a mask is of booleans, an index of whole numbers."""
EMBEDDINGS = ROLES[:3]
DECLARATION = (
    "ROLE [SIZE x ... [< LIMIT]], such as 'student', 'teacher 4096 x D', 'index N < 50000'"
)


@dataclass(frozen=True)
class Input:
    """A tensor that a loss is given.

    Attributes:
        name: of the argument.
        shape: of the tensor.
        role: one of ``ROLES``.
        limit: of an index: what its numbers stay below.
    """

    name: str
    shape: tuple[int, ...]
    role: str = "student"
    limit: int = 0

    @property
    def is_trained(self) -> bool:
        """Whether it gets a gradient."""
        return self.role == "student"

    @property
    def is_embedding(self) -> bool:
        """Whether it is of floating point, of the dtype of the embeddings."""
        return self.role in EMBEDDINGS


Inputs = Callable[[Any, Problem], Sequence[Input]]
"""``inputs(hyperparameters, problem)`` -> what a loss is given, in order."""


def views(hyperparameters: Any, problem: Problem) -> tuple[Input, ...]:
    """Embeddings of each view of a batch, N x D, all trained."""
    shape = problem.batch, problem.dim
    return tuple(Input(view_name(number), shape) for number in range(problem.views))


def view_name(number: int) -> str:
    """``z_a``, ``z_b``, ..."""
    return f"z_{'abcdefghijklmnopqrstuvwxyz'[number % 26]}"


def are_two_views(given: Sequence[Input]) -> bool:
    """Whether a loss is given two trained embeddings of one shape N x D."""
    shapes = {each.shape for each in given}
    trained = all(each.is_trained for each in given)
    return len(given) == 2 and trained and len(shapes) == 1 and len(given[0].shape) == 2


def declared(
    declarations: Mapping[str, str], sizes: Mapping[str, Any], loss: str
) -> tuple[Input, ...]:
    """The inputs that a guest declares.

    Args:
        declarations: name -> ``DECLARATION``. An embedding without sizes is N x D, a mask N.
        sizes: what N, D and other names stand for.
        loss: name of the loss, for the error.

    Raises:
        ValueError: another form, or nothing that is trained.
    """
    if not isinstance(declarations, Mapping) or not declarations:
        raise ValueError(
            f"loss {loss}: its inputs are a dict of names and declarations "
            f"({DECLARATION}), got {declarations!r}"
        )
    found = tuple(_declared(name, text, sizes, loss) for name, text in declarations.items())
    if not any(each.is_trained for each in found):
        raise ValueError(f"loss {loss}: none of its inputs is a student: nothing is trained")
    return found


def _declared(name: str, text: str, sizes: Mapping[str, Any], loss: str) -> Input:
    what = f"loss {loss}: input {name} is {DECLARATION}; got {text!r}"
    role, _, rest = str(text).strip().partition(" ")
    shape, below, limit = rest.partition("<")
    if role not in ROLES or bool(below) != (role == "index"):
        raise ValueError(what)
    default = "N x D" if role in EMBEDDINGS else "N"
    lengths = [_size(part, sizes, what) for part in (shape.strip() or default).split(" x ")]
    return Input(str(name), tuple(lengths), role, _size(limit, sizes, what) if below else 0)


def _size(text: str, sizes: Mapping[str, Any], what: str) -> int:
    value = str(sizes.get(text.strip(), text)).strip()
    if not value.isdecimal() or not int(value):
        known = ", ".join(sizes)
        raise ValueError(f"{what}, of which {text.strip()!r} is no size: a number, {known}")
    return int(value)


def check(loss: str, inputs: Inputs, hyperparameters: Any, tensors: Sequence[Tensor]) -> None:
    """Refuse tensors that are not what a loss is given.

    N and D are the rows and columns of the first tensor of two dimensions.

    Raises:
        ValueError: their number, or a shape, dtype or device.
    """
    shapes = [each.shape for each in tensors if isinstance(each, Tensor) and each.ndim == 2]
    if not shapes:
        raise ValueError(f"{loss} needs embeddings of shape N x D")
    batch, dim = (int(length) for length in shapes[0])  # tensors while it is traced
    given = inputs(hyperparameters, Problem(batch, dim))
    if len(tensors) != len(given):
        names = ", ".join(each.name for each in given)
        raise ValueError(f"{loss} needs {names}, got {len(tensors)} inputs")
    embeddings = [tensor for each, tensor in zip(given, tensors, strict=True) if each.is_embedding]
    for each, tensor in zip(given, tensors, strict=True):
        _check(each, tensor, embeddings[0])


def _check(given: Input, tensor: Tensor, embedding: Tensor) -> None:
    if not isinstance(tensor, Tensor) or tensor.shape != given.shape:
        found = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ValueError(f"{given.name} must be a tensor of shape {given.shape}, got {found}")
    fits = {"mask": tensor.dtype == torch.bool, "index": tensor.dtype == torch.int64}
    if not fits.get(given.role, tensor.is_floating_point() and tensor.dtype == embedding.dtype):
        needed = {"mask": "torch.bool", "index": "torch.int64"}.get(given.role, embedding.dtype)
        raise ValueError(f"{given.name} must be of {needed}, got {tensor.dtype}")
    if tensor.device != embedding.device:
        raise ValueError(f"{given.name} is on {tensor.device}, others on {embedding.device}")
