"""The module a training script sees. Validates once, here, and computes in fp32 or wider."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lossbench.losses.precision import own_precision


class Loss(nn.Module):
    """A self-supervised loss of two (for some losses, more) views.

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
    ) -> None:
        super().__init__()
        self.name = name
        self.implementation = implementation
        self.hyperparameters = hyperparameters
        self._compute = compute
        self._many_views = many_views
        self._widen = widen

    def forward(self, *views: Tensor) -> Tensor:
        """Value of the loss.

        Args:
            *views: embeddings, N x D each, row i of every view from the same sample.

        Returns:
            A scalar, fp32 or the views' dtype if that is wider.

        Raises:
            ValueError: shapes, dtypes or devices that do not fit.
        """
        return torch.stack(list(self.terms(*views).values())).sum()

    def terms(self, *views: Tensor) -> dict[str, Tensor]:
        """Weighted parts of the loss, by name; they add up to ``forward(*views)``."""
        self._validate(views)
        with own_precision(views[0].device.type):
            if self._widen:
                views = tuple(v.to(torch.promote_types(v.dtype, torch.float32)) for v in views)
            return self._compute(self.hyperparameters, *views)

    def extra_repr(self) -> str:
        """Shown by ``print(loss)``."""
        return f"{self.name}, implementation={self.implementation!r}, {self.hyperparameters}"

    def _validate(self, views: tuple[Tensor, ...]) -> None:
        if len(views) < 2 or (len(views) > 2 and not self._many_views):
            needed = "at least two views" if self._many_views else "two views"
            raise ValueError(f"{self.name} needs {needed}, got {len(views)}")
        first = views[0]
        for index, view in enumerate(views):
            _validate_view(f"z_{'abcdefghijklmnopqrstuvwxyz'[index % 26]}", view, first)


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
