"""What the hand-written gradients of ``gram`` and ``chunked`` implementations share."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def needs_gradient(*tensors: Tensor) -> bool:
    """Whether a gradient will be asked for: only then is work spent on it."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def no_autocast(device_type: str) -> AbstractContextManager[object]:
    """Autocast off, where there is one: a correlation of 16 bits loses the positives."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()  # such as "meta", where costs are counted


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a ``Function.backward`` whose result cannot be differentiated again.

    It also switches autocast off: the gradient is computed in the dtype of the loss.
    """

    @wraps(backward)
    def guarded(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():  # create_graph=True
            raise NotImplementedError(
                "gram, chunked and triton implementations have no second derivative; "
                "use implementation='reference'"
            )
        with no_autocast(gradients[0].device.type):
            return backward(ctx, *gradients)

    return guarded
