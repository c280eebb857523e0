"""Spectral contrastive loss (HaoChen et al. 2021, arXiv:2106.04156, eq. 6).

    a, b = rows of z_a, z_b, those longer than sqrt(mu) shortened to it
    L    = -2 mean_i <a_i, b_i> + mean_{i != j} <a_i, b_j>^2

The public code divides by mu, which ``per_mu`` does.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lossbench.losses.collectives import World
from lossbench.losses.costs import Cost, Problem, no_exchange
from lossbench.losses.distributed import form
from lossbench.losses.distributed_gram import row_block_bytes, row_block_cost, row_block_sum
from lossbench.losses.matrix import off_diagonal
from lossbench.losses.registry import cost_model, implementation, register
from lossbench.losses.require import require_positive


@register(
    "spectral_contrastive",
    title="Spectral contrastive",
    source="arXiv:2106.04156, eq. 6",
    family="sample contrast",
    gather_layer=False,
    global_batch_norm=False,
    communicated_bytes=no_exchange,
)
@dataclass(frozen=True)
class SpectralContrastive:
    """Hyperparameters.

    Attributes:
        mu: square of the length that rows are shortened to.
        per_mu: divide the loss by ``mu``, as the public code does.
    """

    mu: float = 1.0
    per_mu: bool = False

    def __post_init__(self) -> None:
        require_positive("mu", self.mu)
        if not isinstance(self.per_mu, bool):
            raise ValueError(f"per_mu must be True or False, got {self.per_mu!r}")

    @property
    def scale(self) -> float:
        """What both terms are multiplied by."""
        return 1 / self.mu if self.per_mu else 1.0


@implementation("spectral_contrastive", "reference")
def reference(hp: SpectralContrastive, z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    """One N x N product of both views."""
    a, b = _shortened(hp, z_a), _shortened(hp, z_b)
    return {
        "positives": -2 * hp.scale * (a * b).sum(dim=1).mean(),
        "negatives": hp.scale * off_diagonal(a @ b.T).square().mean(),
    }


def _shortened(hp: SpectralContrastive, z: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(z, dim=1, keepdim=True)
    long = norm > hp.mu**0.5
    # a zero row would have the gradient 0 / 0, although its quotient is not taken
    return z * (hp.mu**0.5 / norm.masked_fill(~long, hp.mu**0.5))


@cost_model("spectral_contrastive", "reference")
def reference_cost(problem: Problem) -> Cost:
    """One N x N product over D features, and two gradients."""
    product = problem.batch**2 * problem.dim
    elements = problem.batch * problem.dim
    peak = max(6 * elements, 2 * elements + 5 * problem.batch**2)
    return Cost(product, 2 * product, _entries(problem), peak)


def _entries(problem: Problem) -> int:
    return problem.batch * (problem.batch - 1)


def _row_block_cost(problem: Problem, world: int) -> Cost:
    """The rows of one view against the other; for the gradient those of the other as well."""
    return row_block_cost(problem, world, (1, 3), _entries, own=1, blocks=2)


@form("spectral_contrastive", "gram", partial(row_block_bytes, summed=2), _row_block_cost)
def distributed_gram(
    world: World, hp: SpectralContrastive, z_a: Tensor, z_b: Tensor
) -> dict[str, Tensor]:
    """The rows of the rank's own samples."""
    own = torch.stack([_shortened(hp, z_a), _shortened(hp, z_b)])
    everyone = world.size * len(z_a)
    positive = (own[0] * own[1]).sum() / everyone
    negative = row_block_sum(world, _square, own, [(0, 1)]) / (everyone * (everyone - 1))
    return world.sum_each(positives=-2 * hp.scale * positive, negatives=hp.scale * negative)


def _square(rho: Tensor, needs_grad: bool) -> tuple[Tensor, Tensor | None]:
    return rho.square(), rho.mul_(2) if needs_grad else None
