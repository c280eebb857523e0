"""Spectral contrastive loss by fused kernels: the example of a relative of SMI."""

from torch import Tensor

from lossbench.kernels.cost import gram_cost
from lossbench.kernels.language import jit, tl  # noqa: F401 - what jit looks for
from lossbench.kernels.maths import square
from lossbench.kernels.pair_sum import LOSSES, PairLoss, pair_terms
from lossbench.kernels.plan import layout
from lossbench.losses import Cost, Problem, cost_model, implementation
from lossbench.losses.spectral_contrastive import SpectralContrastive


@jit
def product_positive(rho, gap, p0, p1):
    """The product itself."""
    return rho, 1.0, 0.0


LOSSES["spectral_contrastive"] = PairLoss(square, product_positive, both=True)


@implementation("spectral_contrastive", "triton", fused=True)
def fused(
    hp: SpectralContrastive, z_a: Tensor, z_b: Tensor, *, strategy: str | None = None,
    precision: str = "ieee",
) -> dict[str, Tensor]:  # fmt: skip
    """Tiles of the product of both views that never leave the chip, or only their gradient does."""
    name, radius, batch = "spectral_contrastive", hp.mu**0.5, len(z_a)
    on, off = pair_terms(name, z_a, z_b, 1.0, 0.0, radius, strategy, precision)
    return {
        "positives": on * (-2 * hp.scale / batch),
        "negatives": off * (hp.scale / (batch * (batch - 1))),
    }


@cost_model("spectral_contrastive", "triton")
def cost(problem: Problem, strategy: str | None = None, precision: str = "ieee") -> Cost:
    """Each pair of both views once, and once more for the gradient of either of its rows."""
    grams = [layout((problem.batch, problem.dim), both=True)]
    return gram_cost("spectral_contrastive", problem, grams)
