"""What a loss is given: views, or what it declares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lossbench.losses.costs import Problem

ROLES = ("student", "teacher", "target", "mask", "index")
"""Of an input: a student gets a gradient; a teacher and a target, which are embeddings too, never
do; a mask is of booleans, an index of whole numbers."""
SHAPES = {
    **dict.fromkeys(("student", "teacher", "target"), "N x D"),
    **dict.fromkeys(("mask", "index"), "N"),
}
"""Of an input that is declared without a shape, by its role."""
OTHERS = {"mask": torch.bool, "index": torch.int64}
"""Dtypes of what is no embedding, by role."""
FORM = "'ROLE', 'ROLE SIZE x SIZE' or 'index SIZE < LIMIT'"
BATCH, DIM = "N", "D"


@dataclass(frozen=True)
class Input:
    """A tensor that a loss is given.

    Attributes:
        name: of the argument.
        shape: of the tensor: numbers, and "N" and "D" for the samples and features of a batch.
        role: one of ``ROLES``.
        limit: of an index: what its numbers stay below.
    """

    name: str
    shape: tuple[Any, ...]
    role: str = "student"
    limit: int = 0

    @property
    def is_trained(self) -> bool:
        """Whether it gets a gradient."""
        return self.role == "student"

    @property
    def is_embedding(self) -> bool:
        """Whether it is of floating point, of the dtype of the embeddings."""
        return self.role not in OTHERS

    def dtype(self, embeddings: torch.dtype) -> torch.dtype:
        """Of the tensor, where embeddings are of a dtype."""
        return OTHERS.get(self.role, embeddings)

    def of(self, problem: Problem) -> "Input":
        """The same for a batch: its shape is numbers."""
        sizes = {BATCH: problem.batch, DIM: problem.dim}
        return replace(self, shape=tuple(sizes.get(size, size) for size in self.shape))


def views(number: int = 2) -> tuple[Input, ...]:
    """Embeddings of each view of a batch, all trained."""
    return tuple(Input(view_name(index), (BATCH, DIM)) for index in range(number))


def is_two_views(inputs: Sequence[Input]) -> bool:
    """Whether these are two views, whatever their names."""
    kinds = [replace(each, name="") for each in inputs]
    return kinds == [replace(each, name="") for each in views()]


def view_name(index: int) -> str:
    """``z_a``, ``z_b``, ..."""
    return f"z_{'abcdefghijklmnopqrstuvwxyz'[index % 26]}"


def parse(declarations: Mapping[str, str], sizes: Mapping[str, Any], loss: str) -> list[Input]:
    """The inputs that a guest declares.

    Args:
        declarations: name -> text of ``FORM``; without sizes it has those of ``SHAPES``.
        sizes: numbers that the texts call by name, beside N and D.
        loss: name of the loss, for the error.

    Raises:
        ValueError: another form, or nothing that is trained.
    """
    if not isinstance(declarations, Mapping) or not declarations:
        raise ValueError(f"loss {loss}: inputs is a dict, name -> {FORM}; got {declarations!r}")
    found = [
        _parsed(str(name), str(text), sizes, f"loss {loss}: input {name}")
        for name, text in declarations.items()
    ]
    if not any(each.is_trained for each in found):
        raise ValueError(f"loss {loss}: none of its inputs is a student: nothing is trained")
    return found


def _parsed(name: str, text: str, sizes: Mapping[str, Any], what: str) -> Input:
    role, _, rest = text.strip().partition(" ")
    shape, below, limit = rest.partition("<")
    if role not in ROLES or bool(below) != (role == "index"):
        raise ValueError(f"{what} is {FORM}, with a ROLE of {', '.join(ROLES)}; got {text!r}")
    parts = (shape.strip() or SHAPES[role]).split(" x ")
    lengths = tuple(_size(part.strip(), sizes, what) for part in parts)
    return Input(name, lengths, role, _number(limit.strip(), sizes, what) if below else 0)


def _size(text: str, sizes: Mapping[str, Any], what: str) -> int | str:
    return text if text in (BATCH, DIM) else _number(text, sizes, what)


def _number(text: str, sizes: Mapping[str, Any], what: str) -> int:
    value = str(sizes.get(text, text)).strip()
    if not value.isdecimal() or not int(value):
        shown = f"{text} = {value}" if text in sizes else repr(text)
        known = ", ".join((BATCH, DIM, *sizes))
        raise ValueError(f"{what}: {shown} is no size; it is a whole number, or one of {known}")
    return int(value)


def check(loss: str, inputs: Sequence[Input], tensors: Sequence[Tensor]) -> None:
    """Refuse tensors that are not what a loss declares.

    Raises:
        ValueError: their number, or a shape, dtype or device.
    """
    if len(tensors) != len(inputs):
        names = ", ".join(each.name for each in inputs)
        raise ValueError(f"{loss} needs {names}, got {len(tensors)} inputs")
    lengths: dict[str, int] = {}
    embedding: Tensor | None = None
    for each, tensor in zip(inputs, tensors, strict=True):
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{each.name} must be a tensor, got {type(tensor).__name__}")
        _check_shape(each, tensor, lengths)
        if each.is_embedding:
            embedding = tensor if embedding is None else embedding
        _check_kind(each, tensor, embedding)


def _check_shape(given: Input, tensor: Tensor, lengths: dict[str, int]) -> None:
    """N and D are what the first tensor that has them says."""
    fits = len(tensor.shape) == len(given.shape)
    for size, length in zip(given.shape, tensor.shape, strict=False):
        known = lengths.setdefault(size, length) if isinstance(size, str) else size
        fits = fits and known == length
    if not fits:
        needed = " x ".join(map(str, given.shape))
        known = ", ".join(f"{name} = {length}" for name, length in lengths.items())
        found = tuple(tensor.shape)
        raise ValueError(f"{given.name} must have shape {needed} ({known}), got {found}")


def _check_kind(given: Input, tensor: Tensor, embedding: Tensor | None) -> None:
    if given.is_embedding and not tensor.is_floating_point():
        raise ValueError(f"{given.name} must be floating point, got {tensor.dtype}")
    like = tensor if embedding is None else embedding
    if tensor.dtype != given.dtype(like.dtype):
        raise ValueError(f"{given.name} must be of {given.dtype(like.dtype)}, got {tensor.dtype}")
    if tensor.device != like.device:
        raise ValueError(f"{given.name} is on {tensor.device}, others on {like.device}")
