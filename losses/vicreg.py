"""VICReg (Bardes et al. 2022, arXiv:2105.04906, eqs. 1 to 6; official ``main_vicreg.py``).

    invariance = mean_{n,j} (z_a - z_b)^2
    variance   = 1/2 sum_views mean_j relu(1 - sqrt(Var_j + eps))
    covariance = sum_views sum_{i != j} Cov_ij^2 / D
    L          = 25 invariance + 25 variance + 1 covariance

Variance and covariance are unbiased. The factor 1/2 is the official code's; solo-learn drops it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from lossbench.losses.collectives import World
from lossbench.losses.costs import Cost, Exchange, Problem, all_gather_bytes, all_reduce_bytes
from lossbench.losses.cross_norm import (
    TILE_ARRAYS,
    gram_norm,
    gram_norm_macs,
    swept_norm,
    swept_norm_macs,
)
from lossbench.losses.devices import device_type
from lossbench.losses.distributed import form
from lossbench.losses.distributed_gram import row_block_bytes, row_block_cost, row_block_norm
from lossbench.losses.matrix import off_diagonal
from lossbench.losses.registry import cost_model, implementation, register
from lossbench.losses.require import require_positive, require_weight
from lossbench.losses.tiles import gram_side, workspace_side

Norm = Callable[[Tensor], tuple[Tensor, Tensor]]
"""``norm(x)`` -> ``||x.T @ x||_F^2`` and the diagonal of ``x.T @ x``."""


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
    return _terms(hp, z_a, z_b, _moments)


@cost_model("vicreg", "reference")
def reference_cost(problem: Problem) -> Cost:
    """One D x D product over N samples for each view, and two gradients for each product."""
    products = problem.views * problem.batch * problem.dim**2
    elements = problem.batch * problem.dim
    peak = max(7 * elements, 4 * elements + 5 * problem.dim**2)
    return Cost(products, 2 * products, _entries(problem), peak)


@implementation("vicreg", "gram")
def gram(hp: VICReg, z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    """Sum of all squared covariances as ``||X X^T||^2 / (N - 1)^2``: N x N instead of D x D."""
    return terms_by_norm(hp, z_a, z_b, gram_norm)


@cost_model("vicreg", "gram")
def gram_cost(problem: Problem) -> Cost:
    """One symmetric Gram over D features for each view, and one product with each."""
    forward, backward = gram_norm_macs(problem, operands=1)
    elements = problem.batch * problem.dim
    peak = 5 * elements + 3 * problem.batch**2
    macs = problem.views * forward, problem.views * backward
    side = gram_side(problem.batch, problem.device)
    return Cost(*macs, _entries(problem), peak, tile_side=side)


@implementation("vicreg", "chunked")
def chunked(
    hp: VICReg, z_a: Tensor, z_b: Tensor, *, workspace_bytes: int | None = None
) -> dict[str, Tensor]:
    """The Grams, or covariances where N > D, a tile at a time, with the gradient in the sweep."""
    side = _side(workspace_bytes, device_type(z_a), z_a.element_size())
    return terms_by_norm(hp, z_a, z_b, partial(swept_norm, side))


@cost_model("vicreg", "chunked")
def chunked_cost(problem: Problem, workspace_bytes: int | None = None) -> Cost:
    """The upper triangle of the smaller form, and two products for the gradient of each tile."""
    side = _side(workspace_bytes, problem.device, problem.element_bytes)
    forward, backward = (problem.views * n for n in swept_norm_macs(problem, 1, side))
    elements = problem.batch * problem.dim
    tile = min(side, problem.batch, problem.dim) ** 2
    peak = max(7 * elements, 4 * elements + TILE_ARRAYS * tile)
    entries = _entries(problem)
    return Cost(forward, backward, entries, peak, gradient_in_forward=True, tile_side=side)


def _side(workspace_bytes: int | None, device: str, element_bytes: int) -> int:
    return workspace_side(workspace_bytes, device, element_bytes, TILE_ARRAYS)


def _entries(problem: Problem) -> int:
    return problem.views * problem.dim * (problem.dim - 1)


def terms_by_norm(hp: VICReg, z_a: Tensor, z_b: Tensor, norm: Norm) -> dict[str, Tensor]:
    """The terms from ``||X^T X||^2`` and the diagonal of ``X^T X`` of each centred view X."""
    return _terms(hp, z_a, z_b, partial(_moments_by_norm, norm))


def _terms(
    hp: VICReg, z_a: Tensor, z_b: Tensor, moments: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """The terms from each view's variances and its sum of squared covariances."""
    views = [moments(z - z.mean(dim=0)) for z in (z_a, z_b)]
    variances, covariances = zip(*views, strict=True)
    return _weighted(hp, functional.mse_loss(z_a, z_b), variances, covariances)


def _weighted(
    hp: VICReg, distance: Tensor, variances: Sequence[Tensor], covariances: Sequence[Tensor]
) -> dict[str, Tensor]:
    """From the views' mean squared distance, variances and sums of squared covariances."""
    hinges = [functional.relu(1 - (variance + hp.eps).sqrt()).mean() for variance in variances]
    return {
        "invariance": hp.invariance * distance,
        "variance": hp.variance * (hinges[0] + hinges[1]) / 2,
        "covariance": hp.covariance * (covariances[0] + covariances[1]) / len(variances[0]),
    }


def _moments(centred: Tensor) -> tuple[Tensor, Tensor]:
    covariance = centred.T @ centred / (len(centred) - 1)
    return centred.var(dim=0), off_diagonal(covariance).square().sum()


def _moments_by_norm(norm: Norm, centred: Tensor) -> tuple[Tensor, Tensor]:
    """The same from ``||X^T X||^2`` and the diagonal."""
    degrees = len(centred) - 1
    squares, diagonal = norm(centred)
    variance = diagonal / degrees
    return variance, squares / degrees**2 - variance.square().sum()


def _distance(world: World, z_a: Tensor, z_b: Tensor) -> Tensor:
    """Of equal batches, the mean over all samples is the mean of the ranks'."""
    return world.sum(functional.mse_loss(z_a, z_b)) / world.size


def _allreduce_bytes(job: Exchange) -> int:
    """Means, covariances, and the distance between the views."""
    return all_reduce_bytes(job, job.views * (job.dim + job.dim**2) + 1)


def _allreduce_cost(problem: Problem, world: int) -> Cost:
    """The rank's own samples' part of the covariances; every rank then has all of them."""
    elements = problem.batch * problem.dim
    peak = max(8 * elements, 4 * elements + 8 * problem.dim**2)
    return replace(reference_cost(problem), peak_elements=peak)


@form("vicreg", "allreduce", _allreduce_bytes, _allreduce_cost)
def distributed_allreduce(world: World, hp: VICReg, z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    """The covariances are summed; the variances are their diagonals."""
    own = world.centred(z_a, z_b)
    covariance = world.sum(own.mT @ own) / (world.size * len(z_a) - 1)
    squares = torch.stack([off_diagonal(each).square().sum() for each in covariance])
    variance = covariance.diagonal(dim1=1, dim2=2)
    return _weighted(hp, _distance(world, z_a, z_b), variance.unbind(), squares.unbind())


def _row_block_bytes(job: Exchange) -> int:
    """Statistics and views; the norm of each view, and the distance between them."""
    return row_block_bytes(job, 2 * job.views * job.dim + job.views + 1)


def _row_block_cost(problem: Problem, world: int) -> Cost:
    """A row block of each view's Gram, and one product with each."""
    return row_block_cost(problem, world, (2, 2), _entries, at_once=1, own=10, blocks=2)


@form("vicreg", "gram", _row_block_bytes, _row_block_cost)
def distributed_gram(world: World, hp: VICReg, z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    """Sum of all squared covariances of each view from row blocks of its Gram."""
    own = world.centred(z_a, z_b)
    degrees = world.size * len(z_a) - 1
    variance = world.sum(own.square().sum(dim=1)) / degrees
    norms = world.sum(torch.stack([row_block_norm(world, each) for each in own])) / degrees**2
    squares = norms - variance.square().sum(dim=1)
    return _weighted(hp, _distance(world, z_a, z_b), variance.unbind(), squares.unbind())
