"""What the matrix products of a pass take at least on a GPU: by its library, of that shape."""

from statistics import median

import torch

from bench.case import Case
from bench.timing import make_timer

LARGEST = 16384
"""Rows of the largest product that is made: a larger batch takes as many such as it has."""
SAMPLES = 10


def floor_ms(case: Case) -> float:
    """Milliseconds that the library needs for the least multiply-adds of a pass.

    Those are half of the symmetric Gram of both views, 2 N^2 D, and for a step the product of its
    gradient with them, 4 N^2 D. On bf16 operands, unless the case
    has fp32 ones and no lower precision.
    """
    dtype = torch.float32 if case.dtype == "float32" and not case.products else torch.bfloat16
    rows = 2 * case.loss_batch
    side = min(rows, LARGEST)
    z = torch.randn(side, case.dim, device=case.device).to(dtype)
    gram = _milliseconds(case.device, z, z.T) / 2
    if case.pass_ == "step":
        g = torch.randn(side, side, device=case.device).to(dtype)
        gram += _milliseconds(case.device, g, z)
    return gram * (rows / side) ** 2


def _milliseconds(device: str, left: torch.Tensor, right: torch.Tensor) -> float:
    timer = make_timer(device)
    timer(lambda: (left @ right,))  # warms up
    return median(timer(lambda: (left @ right,))[0] for _ in range(SAMPLES))
