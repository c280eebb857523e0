"""Precision of matrix products: the losses' own choice, whatever the user set, or a lower one."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from lossbench.losses.naming import pick

PRODUCTS = ("ieee", "tf32", "bf16")
"""How products of fp32 matrices are made: in fp32, in TF32, or of operands rounded to bf16."""
EXACT = ("ieee", "none")
_lowered: torch.dtype | None = None


def own_precision(device_type: str) -> AbstractContextManager[object]:
    """Autocast off, where there is one: a correlation of 16 bits loses the positives.

    Inside ``products("bf16")`` it is on.
    """
    if device_type == "meta":  # where costs are counted; torch 2.11 compiles no other question
        return nullcontext()
    return torch.autocast(device_type, dtype=_lowered, enabled=_lowered is not None)


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Make the products of implementations in PyTorch in a precision that is not their own.

    It shows what eager code of that precision costs, and what it loses: no loss is meant to be
    computed so. It must hold for the backward pass too.

    Args:
        precision: one of ``PRODUCTS``; "bf16" is what autocast makes of the code.

    Raises:
        ValueError: an unknown precision.
    """
    global _lowered
    pick("precision of products", precision, PRODUCTS)
    before = _lowered
    _lowered = torch.bfloat16 if precision == "bf16" else None
    try:
        with fp32_products("tf32" if precision == "tf32" else "ieee"):
            yield
    finally:
        _lowered = before


@contextmanager
def fp32_products(precision: str) -> Iterator[None]:
    """fp32 products in "ieee" fp32 or in "tf32", which is a setting of the whole process."""
    settings = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    chosen = [setting.fp32_precision for setting in settings]
    if precision == "ieee" and all(setting in EXACT for setting in chosen):
        yield
        return
    for setting in settings:
        setting.fp32_precision = precision
    try:
        yield
    finally:
        for setting, before in zip(settings, chosen, strict=True):
            setting.fp32_precision = before
