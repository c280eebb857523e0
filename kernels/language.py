"""Triton where it can be imported, and what says so where it cannot.

Every module of this package can be imported without Triton: its kernels are then plain functions
that nothing runs.
"""

import importlib.util
import os
from functools import partial
from typing import Any

import torch

INSTALLED = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Kernels run in Triton's interpreter, on the CPU, to be checked and not to be timed."""

SIZES = (
    "batch", "region_down", "region_across", "parts", "part", "top", "left", "length", "tiles",
    "first_tile",
)  # fmt: skip
"""Arguments for whose values no kernel is compiled anew."""


def _let_numpy_tell_bounds() -> None:
    """Mend the bounds of loops, arrays of one entry that numpy 2.4 makes no number of.

    Triton 3.7 does the same.
    """
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_and_mend(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    interpreter._patch_lang_tensor = patch_and_mend


if INSTALLED:
    import triton
    import triton.language as tl

    jit: Any = partial(triton.jit, do_not_specialize=SIZES)
    if INTERPRETED and tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7):
        _let_numpy_tell_bounds()
else:

    class tl:  # type: ignore[no-redef]  # noqa: N801
        """Stands in for ``triton.language`` where kernels are defined."""

        @staticmethod
        def constexpr(value: Any) -> Any:
            """Stand in for the type of arguments that a kernel is compiled for."""
            return value

    def jit(function: Any) -> Any:
        """Stand in for ``triton.jit``."""
        return function


def why_unsupported(device: torch.device) -> str | None:
    """Why kernels cannot run on a device; None where they can."""
    if not INSTALLED:
        return "triton is not installed (there are builds for Linux); use implementation='gram'"
    if device.type == "cuda" and torch.version.hip is None:
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return None
        return "kernels need compute capability 8.0 or newer; use implementation='gram'"
    if device.type == "cpu" and INTERPRETED:
        return None
    return f"kernels need an NVIDIA GPU, not device {device.type}; use implementation='gram'"


def describe_tiles(z: torch.Tensor, rows: int, columns: int) -> Any:
    """A descriptor of a matrix, from which the hardware copies tiles of rows x columns."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor.from_tensor(z, [rows, columns])


def cdiv(a: int, b: int) -> int:
    """The quotient, rounded up."""
    return -(-a // b)


def round_up(a: int, b: int) -> int:
    """The least multiple of ``b`` that is not below ``a``."""
    return cdiv(a, b) * b


def power_of_two(a: int) -> int:
    """The least power of two that is not below ``a``."""
    return 1 << (a - 1).bit_length()
