"""Semantic Mutual Information (Mishra et al. 2026, arXiv:2606.08332, eqs. 1 to 5).

    rho_uv[i, j] = Pearson correlation, over the D features, of sample i of u and sample j of v
    I(rho)       = -1/2 ln(1 - rho^2 + eps)                                    nats
    on           = mean_i (target - I(rho_ab[i, i]))^2
    off_uv       = mean_{i != j} I(rho_uv[i, j])^2              uv in ab, aa, bb
    L            = on + lambda_ mean_uv off_uv

With more than two views, ``on`` averages over the pairs and ``off`` over all V (V + 1) / 2 blocks.
``reduction="sum"`` adds up instead of averaging, the Barlow Twins habit. ``dependency`` replaces I
by rho^2 or rho: the ablation that shows what the logarithm does. A constant row has no correlation:
its rho is 0, and so is its gradient. There is no gather and no global batch norm: each device uses
its own samples.

In fp32, 1 - rho^2 of two different samples is known to about 1e-7, against eps = 1e-6: the
dependency of near-duplicates is resolved to a few per cent.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from lossbench.losses.collectives import World
from lossbench.losses.costs import Cost, Problem, no_exchange
from lossbench.losses.devices import device_type
from lossbench.losses.distributed import form
from lossbench.losses.distributed_gram import row_block_bytes, row_block_cost, row_block_sum
from lossbench.losses.matrix import off_diagonal, unit_rows
from lossbench.losses.naming import pick
from lossbench.losses.pairs import pair_cost, pair_sum
from lossbench.losses.registry import cost_model, implementation, register
from lossbench.losses.require import require_number, require_positive, require_weight
from lossbench.losses.rows import positives, stacked_unit_rows
from lossbench.losses.tiles import gram_side, workspace_side

Reduction = Literal["mean", "sum"]
Dependency = Literal["mutual_information", "squared_correlation", "correlation"]


@register(
    "smi",
    title="SMI",
    source="arXiv:2606.08332, eq. 5",
    family="sample correlation",
    gather_layer=False,
    global_batch_norm=False,
    communicated_bytes=no_exchange,
    many_views=True,
)
@dataclass(frozen=True)
class SMI:
    """Hyperparameters.

    Attributes:
        target: dependency that each positive pair should reach (nats for mutual information).
        lambda_: weight of the off-diagonal part.
        eps: keeps the logarithm finite at rho = 1.
        reduction: "mean", or "sum" over entries and blocks.
        dependency: "mutual_information" (the loss), "squared_correlation" or "correlation".
    """

    target: float = 1.0
    lambda_: float = 10.0
    eps: float = 1e-6
    reduction: Reduction = "mean"
    dependency: Dependency = "mutual_information"

    def __post_init__(self) -> None:
        require_number("target", self.target)
        require_weight("lambda_", self.lambda_)
        require_positive("eps", self.eps)
        pick("reduction", self.reduction, get_args(Reduction))
        pick("dependency", self.dependency, get_args(Dependency))


@implementation("smi", "reference")
def reference(hp: SMI, *views: Tensor) -> dict[str, Tensor]:
    """One N x N correlation matrix for each pair of views, and for each view with itself."""
    rows = [_standardised_rows(view) for view in views]
    pairs = itertools.combinations(rows, 2)
    # itertools.combinations_with_replacement would say it, but the compiler cannot trace that
    blocks = [(u, v) for i, u in enumerate(rows) for v in rows[i:]]
    on = torch.stack([_on_diagonal(hp, u, v) for u, v in pairs])
    off = torch.stack([_off_diagonal(hp, u, v) for u, v in blocks])
    return {"on_diagonal": _reduce(hp, on), "off_diagonal": hp.lambda_ * _reduce(hp, off)}


def _standardised_rows(z: Tensor) -> Tensor:
    """Centre each row over its features and scale it to length one; constant rows become zero."""
    centred = z - z.mean(dim=1, keepdim=True)
    # The mean of a constant row is rounded: a second pass leaves less than one ulp of it.
    centred = centred - centred.mean(dim=1, keepdim=True)
    ulp = torch.finfo(z.dtype).eps * torch.linalg.vector_norm(z, dim=1, keepdim=True)
    return unit_rows(centred, zero_at=ulp)


def _on_diagonal(hp: SMI, u: Tensor, v: Tensor) -> Tensor:
    """Squared distance of the positives' dependency from the target.

    With x = |u - v|^2 / 2 = 1 - rho, 1 - rho^2 is x (2 - x), and likewise with -v: near rho = 1 and
    rho = -1, subtracting a rounded rho^2 from 1 would lose every digit.
    """
    rho = (u * v).sum(dim=1)
    sign = torch.where(rho < 0, -1.0, 1.0).to(rho.dtype)
    x = (u - sign[:, None] * v).square().sum(dim=1) / 2
    gap = x * (2 - x)
    constant = ~(u.any(dim=1) & v.any(dim=1))
    error = hp.target - _dependency(hp, rho, gap.masked_fill(constant, 1.0))
    return _reduce(hp, error.square())


def _off_diagonal(hp: SMI, u: Tensor, v: Tensor) -> Tensor:
    """Squared dependency of different samples."""
    return _reduce(hp, _dependency(hp, off_diagonal(u @ v.T)).square())


def _dependency(hp: SMI, rho: Tensor, gap: Tensor | None = None) -> Tensor:
    """Dependency at correlation ``rho``; ``gap`` is 1 - rho^2 where it is known better."""
    if hp.dependency == "correlation":
        return rho
    if hp.dependency == "squared_correlation":
        return rho.square()
    if gap is not None:
        return -0.5 * (gap + hp.eps).log()
    # log1p keeps the digits of a small rho; the clamp is for duplicates whose rho rounds above 1.
    return -0.5 * torch.log1p((hp.eps - rho.square()).clamp_min(hp.eps - 1))


def _reduce(hp: SMI, entries: Tensor) -> Tensor:
    return entries.mean() if hp.reduction == "mean" else entries.sum()


@cost_model("smi", "reference")
def reference_cost(problem: Problem) -> Cost:
    """One N x N product over D features for each block, and two gradients for each."""
    blocks = problem.views * (problem.views + 1) // 2
    product = problem.batch**2 * problem.dim
    peak = max(4 * _elements(problem), 2 * _elements(problem) + 5 * blocks * problem.batch**2)
    return Cost(blocks * product, 2 * blocks * product, _entries(problem), peak)


@implementation("smi", "gram")
def gram(hp: SMI, *views: Tensor) -> dict[str, Tensor]:
    """One symmetric Gram of the stacked views; its gradient matrix is kept."""
    side = gram_side(len(views[0]), device_type(views[0]))
    return _stacked(hp, views, side, keep=True)


@cost_model("smi", "gram")
def gram_cost(problem: Problem) -> Cost:
    """The tiles of the upper triangle; one product for the gradient."""
    side = gram_side(problem.batch, problem.device)
    macs = pair_cost(problem, side, keep=True)
    kept = (problem.views * problem.batch) ** 2
    peak = max(
        3.5 * _elements(problem),
        2 * _elements(problem) + kept + 5 * min(side, problem.batch) ** 2,
    )
    return Cost(*macs, _entries(problem), round(peak), tile_side=side)


@implementation("smi", "chunked")
def chunked(hp: SMI, *views: Tensor, workspace_bytes: int | None = None) -> dict[str, Tensor]:
    """The Gram a tile at a time, with its gradient in the same sweep."""
    side = _side(workspace_bytes, device_type(views[0]), views[0].element_size())
    return _stacked(hp, views, side, keep=False)


@cost_model("smi", "chunked")
def chunked_cost(problem: Problem, workspace_bytes: int | None = None) -> Cost:
    """The tiles of the upper triangle, and two products for the gradient of each."""
    side = _side(workspace_bytes, problem.device, problem.element_bytes)
    macs = pair_cost(problem, side, keep=False)
    tile = min(side, problem.batch) ** 2
    peak = max(3.5 * _elements(problem), 2 * _elements(problem) + TILE_ARRAYS * tile)
    entries = _entries(problem)
    return Cost(*macs, entries, round(peak), gradient_in_forward=True, tile_side=side)


TILE_ARRAYS = 4
"""Tile-sized arrays alive at once."""


def _side(workspace_bytes: int | None, device: str, element_bytes: int) -> int:
    return workspace_side(workspace_bytes, device, element_bytes, TILE_ARRAYS)


def _elements(problem: Problem) -> int:
    return problem.views * problem.batch * problem.dim


def _entries(problem: Problem) -> int:
    blocks = problem.views * (problem.views + 1) // 2
    return blocks * problem.batch * (problem.batch - 1)


def _stacked(hp: SMI, views: Sequence[Tensor], side: int, keep: bool) -> dict[str, Tensor]:
    batch, blocks = len(views[0]), len(views) * (len(views) + 1) // 2
    z, scale = stacked_unit_rows(views, centre=True)
    rho, x = positives(z, scale, batch)
    error = hp.target - _dependency(hp, rho, x * (2 - x))
    off = pair_sum(partial(_squared_dependency, hp), z, batch, side, keep)
    count = blocks * batch * (batch - 1) if hp.reduction == "mean" else 1
    on = _reduce(hp, error.square())
    return {"on_diagonal": on, "off_diagonal": hp.lambda_ / count * off}


def _squared_dependency(hp: SMI, rho: Tensor, needs_grad: bool) -> tuple[Tensor, Tensor | None]:
    """Squared dependency of different samples and its derivative, overwriting ``rho``.

    With f = -1/2 log(1 + t), t = eps - rho^2: d(f^2)/d rho = 2 f rho / (1 + t). Where rho is
    rounded above 1, the derivative is zero, as autograd's is of the reference's clamp.
    """
    square = rho.square()
    if hp.dependency == "correlation":
        return square, rho.mul_(2) if needs_grad else None
    if hp.dependency == "squared_correlation":
        slope = rho.mul_(square).mul_(4) if needs_grad else None
        return square.square_(), slope
    t = (hp.eps - square).clamp_min_(hp.eps - 1)
    f = torch.log1p(t).mul_(-0.5)
    slope = None
    if needs_grad:
        slope = rho.masked_fill_(square > 1, 0.0).mul_(f).div_(t.add_(1)).mul_(2)
    return f.square_(), slope


def _row_block_cost(problem: Problem, world: int) -> Cost:
    """Row blocks of all pairs of views; for the gradient those below the diagonal as well."""
    above = problem.views * (problem.views + 1) // 2
    every = problem.views**2
    return row_block_cost(problem, world, (above, 2 * every - above), _entries)


@form("smi", "gram", partial(row_block_bytes, summed=2), _row_block_cost)
def distributed_gram(world: World, hp: SMI, *views: Tensor) -> dict[str, Tensor]:
    """Row blocks of the upper triangle of views; the positives are the rank's own."""
    count, batch = len(views), len(views[0])
    z, scale = stacked_unit_rows(views, centre=True)
    rho, x = positives(z, scale, batch)
    on = (hp.target - _dependency(hp, rho, x * (2 - x))).square()
    blocks = list(itertools.combinations_with_replacement(range(count), 2))
    own = z.view(count, batch, -1)
    off = row_block_sum(world, partial(_squared_dependency, hp), own, blocks)
    terms = world.sum_each(on_diagonal=on.sum(), off_diagonal=hp.lambda_ * off)
    if hp.reduction == "mean":
        everyone = world.size * batch
        terms["on_diagonal"] = terms["on_diagonal"] / (len(rho) * everyone)
        terms["off_diagonal"] = terms["off_diagonal"] / (len(blocks) * everyone * (everyone - 1))
    return terms
