"""What the matrix products of a pass take at least on a GPU: by its library, of that shape."""

from statistics import median

import torch

from lossbench import losses
from lossbench.bench.cases.case import Case
from lossbench.bench.measuring.timing import make_timer

LARGEST = 16384
"""Rows of the largest product that is made: a larger batch takes as many such as it has."""
SAMPLES = 10


def floor_ms(case: Case) -> float:
    """Milliseconds that the library needs for the least multiply-adds of a pass.

    Those of SMI are half of the symmetric Gram of both views, 2 N^2 D, and for a step the product
    of its gradient with them, 4 N^2 D; other losses need as much more or less as fused kernels of
    them do. On bf16 operands, unless the case has fp32 ones and no lower precision.
    """
    dtype = torch.float32 if case.dtype == "float32" and not case.products else torch.bfloat16
    rows = 2 * case.loss_batch
    side = min(rows, LARGEST)
    z = torch.randn(side, case.dim, device=case.device).to(dtype)
    gram = _milliseconds(case, z, z.T) / 2
    if case.pass_ == "step":
        g = torch.randn(side, side, device=case.device).to(dtype)
        gram += _milliseconds(case, g, z)
    return gram * (rows / side) ** 2 * _work_to_smi(case)


def _work_to_smi(case: Case) -> float:
    """Multiply-adds of a loss's fused kernels, or of what there is, over those of SMI's."""
    problem = losses.Problem(case.loss_batch, case.dim)
    spec, smi = losses.spec(case.loss), losses.spec("smi").cost("triton", problem)
    own = spec.cost("triton", problem) if "triton" in spec.cost_models else spec.estimate(problem)
    return own.macs(case.pass_) / smi.macs(case.pass_)


def _milliseconds(case: Case, left: torch.Tensor, right: torch.Tensor) -> float:
    def call() -> tuple[torch.Tensor]:
        return (left @ right,)

    timer = make_timer(case.device)
    timer(call)  # warms up
    return median(timer(call)[0] for _ in range(SAMPLES))
