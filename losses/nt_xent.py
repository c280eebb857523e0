"""NT-Xent, the loss of SimCLR (Chen et al. 2020, arXiv:2002.05709, eq. 1).

s_uv[i, j] = <u_i, v_j> / temperature on L2-normalised rows
L = mean over the 2N anchors of [ logsumexp over the other 2N - 1 - s(anchor, its positive) ]
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lossbench.losses.collectives import World
from lossbench.losses.costs import Cost, Exchange, Problem, all_gather_bytes
from lossbench.losses.devices import device_type
from lossbench.losses.distributed import form
from lossbench.losses.distributed_gram import row_block_bytes, row_block_cost, row_block_logsumexp
from lossbench.losses.matrix import unit_rows
from lossbench.losses.pairs import pair_cost, pair_logsumexp
from lossbench.losses.registry import cost_model, implementation, register
from lossbench.losses.require import require_positive
from lossbench.losses.rows import stacked_unit_rows
from lossbench.losses.tiles import gram_side, workspace_side


@register(
    "nt_xent",
    title="NT-Xent",
    source="arXiv:2002.05709, eq. 1",
    family="sample contrast",
    gather_layer=True,
    global_batch_norm=False,
    communicated_bytes=all_gather_bytes,
)
@dataclass(frozen=True)
class NTXent:
    """Hyperparameters.

    Attributes:
        temperature: divides the cosine similarities.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        require_positive("temperature", self.temperature)


@implementation("nt_xent", "reference")
def reference(hp: NTXent, z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    """Three N x N blocks: ab, aa and bb (ba is ab transposed)."""
    a, b = unit_rows(z_a), unit_rows(z_b)
    ab = a @ b.T / hp.temperature
    aa = _without_self(a @ a.T / hp.temperature)
    bb = _without_self(b @ b.T / hp.temperature)
    positive = torch.arange(len(ab), device=ab.device)
    # Cross-entropy subtracts the row maximum: small temperatures do not overflow, and a loss near
    # zero keeps its digits, which two separate means of size 1 / temperature would lose.
    return {
        "anchors_a": functional.cross_entropy(torch.cat([ab, aa], dim=1), positive) / 2,
        "anchors_b": functional.cross_entropy(torch.cat([ab.T, bb], dim=1), positive) / 2,
    }


def _without_self(similarity: Tensor) -> Tensor:
    itself = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    return similarity.masked_fill(itself, float("-inf"))


@cost_model("nt_xent", "reference")
def reference_cost(problem: Problem) -> Cost:
    """Three N x N products over D features, and two gradients for each."""
    product = problem.batch**2 * problem.dim
    elements = problem.batch * problem.dim
    peak = max(6 * elements, 3 * elements + 9 * problem.batch**2)
    return Cost(3 * product, 6 * product, _negatives(problem), peak)


@implementation("nt_xent", "gram")
def gram(hp: NTXent, z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    """One symmetric Gram of the stacked views, kept for the gradient."""
    side = gram_side(len(z_a), device_type(z_a))
    return _stacked(hp, z_a, z_b, side, keep=True)


@cost_model("nt_xent", "gram")
def gram_cost(problem: Problem) -> Cost:
    """The tiles of the upper triangle; one product for the gradient."""
    side = gram_side(problem.batch, problem.device)
    macs = pair_cost(problem, side, keep=True)
    elements = problem.batch * problem.dim
    peak = max(7 * elements, 4 * elements + 7 * problem.batch**2)
    return Cost(*macs, _negatives(problem), peak, tile_side=side)


@implementation("nt_xent", "chunked")
def chunked(
    hp: NTXent, z_a: Tensor, z_b: Tensor, *, workspace_bytes: int | None = None
) -> dict[str, Tensor]:
    """The Gram a tile at a time; the gradient computes the tiles again."""
    side = _side(workspace_bytes, device_type(z_a), z_a.element_size())
    return _stacked(hp, z_a, z_b, side, keep=False)


@cost_model("nt_xent", "chunked")
def chunked_cost(problem: Problem, workspace_bytes: int | None = None) -> Cost:
    """The tiles of the upper triangle, twice, and two products for the gradient of each."""
    side = _side(workspace_bytes, problem.device, problem.element_bytes)
    macs = pair_cost(problem, side, keep=False, recompute=True)
    elements = problem.batch * problem.dim
    peak = max(7 * elements, 4 * elements + TILE_ARRAYS * min(side, problem.batch) ** 2)
    return Cost(*macs, _negatives(problem), peak, tile_side=side)


TILE_ARRAYS = 3
"""Tile-sized arrays alive at once."""


def _side(workspace_bytes: int | None, device: str, element_bytes: int) -> int:
    return workspace_side(workspace_bytes, device, element_bytes, TILE_ARRAYS)


def _negatives(problem: Problem) -> int:
    return 2 * problem.batch * (2 * problem.batch - 2)


def _stacked(hp: NTXent, z_a: Tensor, z_b: Tensor, side: int, keep: bool) -> dict[str, Tensor]:
    """Cross-entropy as softplus(logsumexp of the negatives - positive): no digit of it cancels."""
    batch, scale = len(z_a), 1 / hp.temperature
    z, _ = stacked_unit_rows((z_a, z_b), centre=False)
    negatives, positive = pair_logsumexp(z, scale, side, keep)
    rows = torch.logaddexp(negatives - positive, torch.zeros_like(positive))
    of_a, of_b = rows.view(2, batch).mean(dim=1)
    return {"anchors_a": of_a / 2, "anchors_b": of_b / 2}


def _row_block_bytes(job: Exchange) -> int:
    """The backward pass gathers the logsumexp of each row of two views, and its weight."""
    of_rows = Exchange(job.batch, 2, job.world, job.element_bytes, "forward")
    return row_block_bytes(job, 2) + (all_gather_bytes(of_rows) if job.pass_ == "step" else 0)


def _row_block_cost(problem: Problem, world: int) -> Cost:
    """All rows of a rank against all of both views, kept for the gradient."""
    return row_block_cost(problem, world, (4, 4), _negatives, gradient_in_forward=False, blocks=12)


@form("nt_xent", "gram", _row_block_bytes, _row_block_cost)
def distributed_gram(world: World, hp: NTXent, z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    """The rank's own anchors, against the samples of all."""
    batch, scale = len(z_a), 1 / hp.temperature
    z, _ = stacked_unit_rows((z_a, z_b), centre=False)
    own = z.view(2, batch, -1)
    negatives = row_block_logsumexp(world, own, scale)
    positive = scale * (own[0] * own[1]).sum(dim=1).repeat(2)
    rows = torch.logaddexp(negatives - positive, torch.zeros_like(positive))
    of_a, of_b = rows.view(2, batch).sum(dim=1) / (2 * world.size * batch)
    return world.sum_each(anchors_a=of_a, anchors_b=of_b)
