"""Barlow Twins (Zbontar et al. 2021, arXiv:2103.03230, eq. 1 and algorithm 1).

    A, B = each feature of z_a, z_b standardised over the batch (biased variance)
    C    = A^T B / N                                                    D x D
    L    = sum_i (1 - C_ii)^2 + lambda_ sum_{i != j} C_ij^2

The official code standardises with batch norm (biased variance, eps 1e-5); the paper's pseudocode
uses the unbiased deviation, which differs by (N - 1) / N. We follow the code.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from losses.costs import Cost, Exchange, all_reduce_bytes
from losses.matrix import off_diagonal
from losses.registry import cost_model, implementation, register
from losses.require import require_positive, require_weight


def official_bytes(job: Exchange) -> int:
    """Batch norm over all devices (mean and variance, forward and backward), then the sum of C."""
    statistics = 2 * job.dim * (2 if job.pass_ == "step" else 1)
    return all_reduce_bytes(job, statistics) + all_reduce_bytes(job, job.dim**2)


@register(
    "barlow_twins",
    title="Barlow Twins",
    source="arXiv:2103.03230, eq. 1",
    family="feature correlation",
    gather_layer=False,  # it sums C over devices instead
    global_batch_norm=True,
    communicated_bytes=official_bytes,
)
@dataclass(frozen=True)
class BarlowTwins:
    """Hyperparameters.

    Attributes:
        lambda_: weight of the off-diagonal part.
        eps: added to the variance before the square root.
    """

    lambda_: float = 0.0051
    eps: float = 1e-5

    def __post_init__(self) -> None:
        require_weight("lambda_", self.lambda_)
        require_positive("eps", self.eps)


@implementation("barlow_twins", "reference")
def reference(hp: BarlowTwins, z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    """The D x D cross-correlation matrix, as the paper writes it."""
    a = functional.batch_norm(z_a, None, None, training=True, eps=hp.eps)
    b = functional.batch_norm(z_b, None, None, training=True, eps=hp.eps)
    correlation = a.T @ b / len(a)
    return {
        "on_diagonal": (1 - correlation.diagonal()).square().sum(),
        "off_diagonal": hp.lambda_ * off_diagonal(correlation).square().sum(),
    }


@cost_model("barlow_twins", "reference")
def reference_cost(batch: int, dim: int, views: int) -> Cost:
    """One D x D product over N samples, and its two gradients."""
    product = batch * dim**2
    return Cost(product, 2 * product, off_diagonal_entries=dim * (dim - 1))
