"""The module a training script sees. Validates once, here, and computes in fp32 or wider."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lossbench.losses.inputs import Input, check, view_name
from lossbench.losses.precision import own_precision


class Loss(nn.Module):
    """A self-supervised loss of two (for some losses, more) views, or of the inputs it declares.

    Embeddings of 16 bits are computed in fp32, but for fused kernels, which take them as they are;
    autocast is switched off inside, because a correlation rounded to 16 bits loses the positives.
    """

    def __init__(
        self,
        name: str,
        implementation: str,
        compute: Callable[..., dict[str, Tensor]],
        hyperparameters: Any,
        many_views: bool,
        widen: bool,
        declared: Sequence[Input] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.implementation = implementation
        self.hyperparameters = hyperparameters
        self._compute = compute
        self._many_views = many_views
        self._widen = widen
        self._declared = declared

    def forward(self, *inputs: Tensor) -> Tensor:
        """Value of the loss.

        Args:
            *inputs: of most losses views: embeddings, N x D each, row i of every view from the same
                sample. Of others what they declare, in that order.

        Returns:
            A scalar, fp32 or the embeddings' dtype if that is wider.

        Raises:
            ValueError: shapes, dtypes or devices that do not fit.
        """
        return torch.stack(list(self.terms(*inputs).values())).sum()

    def terms(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Weighted parts of the loss, by name; they add up to ``forward(*inputs)``."""
        self._validate(inputs)
        with own_precision(inputs[0].device.type):
            if self._widen:
                inputs = tuple(_wide(each) for each in inputs)
            return self._compute(self.hyperparameters, *inputs)

    def extra_repr(self) -> str:
        """Shown by ``print(loss)``."""
        return f"{self.name}, implementation={self.implementation!r}, {self.hyperparameters}"

    @property
    def has_views(self) -> bool:
        """Whether it is given views, and declares no inputs."""
        return self._declared is None

    def _validate(self, inputs: tuple[Tensor, ...]) -> None:
        if self._declared is not None:
            check(self.name, self._declared, inputs)
            return
        if len(inputs) < 2 or (len(inputs) > 2 and not self._many_views):
            needed = "at least two views" if self._many_views else "two views"
            raise ValueError(f"{self.name} needs {needed}, got {len(inputs)}")
        for index, view in enumerate(inputs):
            _validate_view(view_name(index), view, inputs[0])


def _wide(tensor: Tensor) -> Tensor:
    """In fp32 or wider, if it is of floating point."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _validate_view(name: str, view: Tensor, first: Tensor) -> None:
    """Check one view: a floating N x D tensor that matches the first."""
    if not isinstance(view, Tensor):
        raise ValueError(f"{name} must be a tensor of shape N x D, got {type(view).__name__}")
    if view.ndim != 2 or view.shape[1] < 1:
        raise ValueError(f"{name} must have shape N x D, got {tuple(view.shape)}")
    if view.shape[0] < 2:
        raise ValueError(f"{name} holds {view.shape[0]} sample(s); the loss needs at least 2")
    if not view.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {view.dtype}")
    for property_ in ("shape", "dtype", "device"):
        got, needed = getattr(view, property_), getattr(first, property_)
        if got != needed:
            raise ValueError(f"{name} has {property_} {_show(got)} but z_a has {_show(needed)}")


def _show(value: object) -> str:
    return str(tuple(value)) if isinstance(value, torch.Size) else str(value)
