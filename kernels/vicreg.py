"""VICReg by fused kernels: the norm of each view's covariance without D x D or N x N."""

from functools import partial

import torch
from torch import Tensor

from lossbench.kernels.cost import gram_cost
from lossbench.kernels.feature_norm import fused_norm, layouts
from lossbench.kernels.ops import require_support
from lossbench.losses import Cost, Problem, cost_model, implementation
from lossbench.losses.vicreg import VICReg, terms_by_norm


@implementation("vicreg", "triton", fused=True)
def fused(
    hp: VICReg, z_a: Tensor, z_b: Tensor, *, strategy: str | None = None
) -> dict[str, Tensor]:
    """A Gram of each view, or its covariance where N > D, tile by tile."""
    require_support(z_a, strategy)
    # centred features have no bound: bf16 has the range that fp16 has not
    narrow = torch.float32 if z_a.dtype == torch.float32 else torch.bfloat16
    return terms_by_norm(hp, z_a.float(), z_b.float(), partial(fused_norm, narrow, strategy))


@cost_model("vicreg", "triton")
def cost(problem: Problem, strategy: str | None = None) -> Cost:
    """Each pair of rows of a view once, and once more for the gradient of either."""
    grams = layouts((problem.batch, problem.dim), operands=1)
    return gram_cost("vicreg", problem, problem.views * grams)
