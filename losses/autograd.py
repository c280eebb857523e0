"""What the hand-written gradients of ``gram`` and ``chunked`` implementations share."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from lossbench.losses.precision import own_precision


def needs_gradient(*tensors: Tensor) -> bool:
    """Whether a gradient will be asked for: only then is work spent on it."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a ``Function.backward`` whose result cannot be differentiated again.

    It also sees to the precision: the gradient is computed in that of the loss.
    """

    @wraps(backward)
    def guarded(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():  # create_graph=True
            raise NotImplementedError(
                "gram, chunked and triton implementations have no second derivative; "
                "use implementation='reference'"
            )
        with own_precision(gradients[0].device.type):
            return backward(ctx, *gradients)

    return guarded
