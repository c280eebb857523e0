"""Barlow Twins (Zbontar et al. 2021, arXiv:2103.03230, eq. 1 and algorithm 1).

    A, B = each feature of z_a, z_b standardised over the batch (biased variance)
    C    = A^T B / N                                                    D x D
    L    = sum_i (1 - C_ii)^2 + lambda_ sum_{i != j} C_ij^2

The official code standardises with batch norm (biased variance, eps 1e-5); the paper's pseudocode
uses the unbiased deviation, which differs by (N - 1) / N. We follow the code.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor
from torch.nn import functional

from lossbench.losses.collectives import World
from lossbench.losses.costs import Cost, Exchange, Problem, all_reduce_bytes
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

Norm = Callable[..., tuple[Tensor, Tensor]]
"""``norm(a, b)`` -> ``||a.T @ b||_F^2`` and the diagonal of ``a.T @ b``."""


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
    a, b = _standardised(hp, z_a, z_b)
    correlation = a.T @ b / len(a)
    return _terms(hp, correlation.diagonal(), off_diagonal(correlation).square().sum())


@cost_model("barlow_twins", "reference")
def reference_cost(problem: Problem) -> Cost:
    """One D x D product over N samples, and its two gradients."""
    product = problem.batch * problem.dim**2
    elements = problem.batch * problem.dim
    peak = max(4 * elements, 2 * elements + 4 * problem.dim**2)
    return Cost(product, 2 * product, _entries(problem), peak)


@implementation("barlow_twins", "gram")
def gram(hp: BarlowTwins, z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    """Sum of all squared correlations as ``<A A^T, B B^T> / N^2``: N x N instead of D x D."""
    return terms_by_norm(hp, z_a, z_b, gram_norm)


@cost_model("barlow_twins", "gram")
def gram_cost(problem: Problem) -> Cost:
    """Two symmetric Grams over D features, and one product with each."""
    peak = 4 * problem.batch * problem.dim + 3 * problem.batch**2
    macs = gram_norm_macs(problem, operands=2)
    side = gram_side(problem.batch, problem.device)
    return Cost(*macs, _entries(problem), peak, tile_side=side)


@implementation("barlow_twins", "chunked")
def chunked(
    hp: BarlowTwins, z_a: Tensor, z_b: Tensor, *, workspace_bytes: int | None = None
) -> dict[str, Tensor]:
    """The Grams, or C where N > D, a tile at a time, with the gradient in the same sweep."""
    side = _side(workspace_bytes, device_type(z_a), z_a.element_size())
    return terms_by_norm(hp, z_a, z_b, partial(swept_norm, side))


@cost_model("barlow_twins", "chunked")
def chunked_cost(problem: Problem, workspace_bytes: int | None = None) -> Cost:
    """The tiles of the smaller form, and two products for the gradient of each."""
    side = _side(workspace_bytes, problem.device, problem.element_bytes)
    macs = swept_norm_macs(problem, 2, side)
    elements = problem.batch * problem.dim
    tile = min(side, problem.batch, problem.dim) ** 2
    peak = max(6 * elements, 4 * elements + TILE_ARRAYS * tile)
    return Cost(*macs, _entries(problem), peak, gradient_in_forward=True, tile_side=side)


def _side(workspace_bytes: int | None, device: str, element_bytes: int) -> int:
    return workspace_side(workspace_bytes, device, element_bytes, TILE_ARRAYS)


def _entries(problem: Problem) -> int:
    return problem.dim * (problem.dim - 1)


def _standardised(hp: BarlowTwins, *views: Tensor) -> list[Tensor]:
    return [functional.batch_norm(z, None, None, training=True, eps=hp.eps) for z in views]


def terms_by_norm(hp: BarlowTwins, z_a: Tensor, z_b: Tensor, norm: Norm) -> dict[str, Tensor]:
    """The terms from ``||A^T B||^2`` and the diagonal of ``A^T B``."""
    batch = len(z_a)
    squares, diagonal = norm(*_standardised(hp, z_a, z_b))
    correlations = diagonal / batch
    return _terms(hp, correlations, squares / batch**2 - correlations.square().sum())


def _statistics(job: Exchange) -> int:
    """Elements of mean and variance of each feature of each view."""
    return 2 * job.views * job.dim


def _terms(hp: BarlowTwins, correlations: Tensor, squares: Tensor) -> dict[str, Tensor]:
    """From the diagonal of C and the sum of its squares off the diagonal."""
    on = (1 - correlations).square().sum()
    return {"on_diagonal": on, "off_diagonal": hp.lambda_ * squares}


def _allreduce_bytes(job: Exchange) -> int:
    """Statistics and C. With the variances beside C, the backward pass needs neither again."""
    return all_reduce_bytes(job, _statistics(job) + job.dim**2)


def _allreduce_cost(problem: Problem, world: int) -> Cost:
    """The rank's own samples' part of C; every rank then has all of it."""
    elements = problem.batch * problem.dim
    peak = max(10 * elements, 2 * elements + 7 * problem.dim**2)
    return replace(reference_cost(problem), peak_elements=peak)


@form("barlow_twins", "allreduce", _allreduce_bytes, _allreduce_cost)
def distributed_allreduce(
    world: World, hp: BarlowTwins, z_a: Tensor, z_b: Tensor
) -> dict[str, Tensor]:
    """The covariance of the views and their variances are summed, C is their quotient."""
    own = world.centred(z_a, z_b)
    everyone = world.size * len(z_a)
    deviation = (world.sum(own.square().sum(dim=1)) / everyone + hp.eps).sqrt()
    covariance = world.sum(own[0].T @ own[1]) / everyone
    correlation = covariance / deviation[0][:, None] / deviation[1]
    squares = off_diagonal(correlation).square().sum()
    return _terms(hp, correlation.diagonal(), squares)


def _row_block_bytes(job: Exchange) -> int:
    """Statistics; views; the norm and the diagonal of C; then the gradient of the variance."""
    backward = job.views * job.dim if job.pass_ == "step" else 0
    return row_block_bytes(job, _statistics(job) + job.dim + 1 + backward)


def _row_block_cost(problem: Problem, world: int) -> Cost:
    """A row block of each view's Gram, and one product with each."""
    return row_block_cost(problem, world, (2, 2), _entries, blocks=3)


@form("barlow_twins", "gram", _row_block_bytes, _row_block_cost)
def distributed_gram(world: World, hp: BarlowTwins, z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    """Sum of all squared correlations from row blocks of the Grams of the standardised views."""
    own = world.centred(z_a, z_b)
    everyone = world.size * len(z_a)
    # each rank standardises its own samples: the gradient of the variance is in all of them
    variance = world.sum_used_apart(own.square().sum(dim=1, keepdim=True)) / everyone
    a, b = own / (variance + hp.eps).sqrt()
    correlations = world.sum((a * b).sum(dim=0)) / everyone
    norm = world.sum(row_block_norm(world, a, b)) / everyone**2
    return _terms(hp, correlations, norm - correlations.square().sum())
