"""``torch.compile`` of a reference implementation: the same maths, fused by the compiler."""

import itertools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossbench.losses.naming import pick

MODES = ("default", "max-autotune-no-cudagraphs")
"""Without CUDA graphs: all contenders are launched alike."""
Compute = Callable[..., dict[str, Tensor]]
_numbers = itertools.count()


class Compiled:
    """A reference implementation that is compiled for each kind of input when first called.

    Every shape gets code of its own: after a second shape the compiler would go over to slower
    code for any shape, and after eight it would go back to eager, in silence.

    Attributes:
        reference: what is compiled.
    """

    def __init__(self, reference: Compute) -> None:
        self.reference = reference
        self.__module__ = reference.__module__  # says whose code it is
        self._ready: dict[Any, Compute] = {}

    def __call__(
        self, hyperparameters: Any, *inputs: Tensor, mode: str = "default"
    ) -> dict[str, Tensor]:
        """The weighted terms of the loss; ``mode`` is that of ``torch.compile``."""
        pick("mode of torch.compile", mode, MODES)
        kinds = ((v.shape, v.dtype, v.device, v.requires_grad) for v in inputs)
        key = (hyperparameters, mode, torch.is_grad_enabled(), *kinds)
        if key not in self._ready:
            copied = _copy(self.reference)
            self._ready[key] = torch.compile(copied, dynamic=False, fullgraph=True, mode=mode)
        return self._ready[key](hyperparameters, *inputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Compiled":
        """Compiled code is shared."""
        return self

    def __reduce__(self) -> tuple[type, tuple[Compute]]:
        """Compiled code stays behind."""
        return Compiled, (self.reference,)


def _copy(function: Any) -> Any:
    """The same function with a code object of its own, to which the compiler ties its cache."""
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_numbers)}")
    return types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
