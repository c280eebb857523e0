"""The kind of device that work is cut up for, which need not be here."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_pretended: str | None = None


def device_type(z: Tensor) -> str:
    """Type of the device that a tensor is on, or is counted for, such as "cpu"."""
    return _pretended or z.device.type


@contextmanager
def as_if_on(device: str) -> Iterator[None]:
    """Cut work up as on another device: to count it where there is none, on tensors of a CPU.

    Args:
        device: type of the device, such as "cuda".
    """
    global _pretended
    before, _pretended = _pretended, device
    try:
        yield
    finally:
        _pretended = before
