"""Barlow Twins by fused kernels: the norm of its correlation matrix without D x D or N x N."""

from functools import partial

from torch import Tensor

from lossbench.kernels.cost import gram_cost
from lossbench.kernels.feature_norm import fused_norm, layouts
from lossbench.kernels.ops import require_support
from lossbench.kernels.rows import OPERAND
from lossbench.losses import Cost, Problem, cost_model, implementation
from lossbench.losses.barlow_twins import BarlowTwins, terms_by_norm


@implementation("barlow_twins", "triton", fused=True)
def fused(
    hp: BarlowTwins, z_a: Tensor, z_b: Tensor, *, strategy: str | None = None
) -> dict[str, Tensor]:
    """Two Grams, or C where N > D, tile by tile."""
    require_support(z_a, strategy)
    narrow = OPERAND[z_a.dtype]  # standardised features are at most sqrt(N)
    return terms_by_norm(hp, z_a.float(), z_b.float(), partial(fused_norm, narrow, strategy))


@cost_model("barlow_twins", "triton")
def cost(problem: Problem, strategy: str | None = None) -> Cost:
    """Each pair of rows once, and once more for the gradient of either."""
    grams = layouts((problem.batch, problem.dim), operands=2)
    return gram_cost("barlow_twins", problem, grams, at_once=len(grams))
