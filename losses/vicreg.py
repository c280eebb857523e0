"""VICReg (Bardes et al. 2022, arXiv:2105.04906, eqs. 1 to 6; official ``main_vicreg.py``).

    invariance = mean_{n,j} (z_a - z_b)^2
    variance   = 1/2 sum_views mean_j relu(1 - sqrt(Var_j + eps))
    covariance = sum_views sum_{i != j} Cov_ij^2 / D
    L          = 25 invariance + 25 variance + 1 covariance

Variance and covariance are unbiased. The factor 1/2 is the official code's; solo-learn drops it.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from losses.costs import Cost, all_gather_bytes
from losses.matrix import off_diagonal
from losses.registry import cost_model, implementation, register
from losses.require import require_positive, require_weight


@register(
    "vicreg",
    title="VICReg",
    source="arXiv:2105.04906, eq. 6",
    family="feature covariance",
    gather_layer=True,
    global_batch_norm=False,
    communicated_bytes=all_gather_bytes,
)
@dataclass(frozen=True)
class VICReg:
    """Hyperparameters.

    Attributes:
        invariance: weight of the mean squared distance between the views.
        variance: weight of the hinge on each feature's standard deviation.
        covariance: weight of the off-diagonal covariances.
        eps: added to the variance before the square root.
    """

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0
    eps: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("invariance", "variance", "covariance"):
            require_weight(name, getattr(self, name))
        require_positive("eps", self.eps)


@implementation("vicreg", "reference")
def reference(hp: VICReg, z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    """One D x D covariance matrix a view, as the paper writes it."""
    a, b = z_a - z_a.mean(dim=0), z_b - z_b.mean(dim=0)
    spread = (_hinge(a, hp.eps) + _hinge(b, hp.eps)) / 2
    overlap = _off_diagonal_covariance(a) + _off_diagonal_covariance(b)
    return {
        "invariance": hp.invariance * functional.mse_loss(z_a, z_b),
        "variance": hp.variance * spread,
        "covariance": hp.covariance * overlap,
    }


def _hinge(centred: Tensor, eps: float) -> Tensor:
    deviation = (centred.var(dim=0) + eps).sqrt()
    return functional.relu(1 - deviation).mean()


def _off_diagonal_covariance(centred: Tensor) -> Tensor:
    batch, dim = centred.shape
    covariance = centred.T @ centred / (batch - 1)
    return off_diagonal(covariance).square().sum() / dim


@cost_model("vicreg", "reference")
def reference_cost(batch: int, dim: int, views: int) -> Cost:
    """One D x D product over N samples for each view, and two gradients for each product."""
    product = batch * dim**2
    return Cost(views * product, 2 * views * product, views * dim * (dim - 1))
