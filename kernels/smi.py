"""SMI by fused kernels: its dependency, squared, of every entry of the stacked Gram."""

from torch import Tensor

from lossbench.kernels.cost import gram_cost
from lossbench.kernels.language import jit, tl
from lossbench.kernels.maths import is_near, mutual_information, squared_information_near
from lossbench.kernels.pair_sum import LOSSES, PairLoss, pair_terms
from lossbench.kernels.plan import layout
from lossbench.losses import Cost, Problem, cost_model, implementation
from lossbench.losses.smi import SMI


@jit
def information_entry(rho, eps, target):
    """Squared mutual information of two different samples, and its slope."""
    f, inverse = mutual_information(rho, 1 - tl.abs(rho), eps)
    return f * f, tl.where(tl.abs(rho) > 1, 0.0, 2 * f * rho * inverse)


@jit
def information_positive(rho, gap, eps, target):
    """Squared distance of a positive's mutual information from the target, and its slopes."""
    f, inverse = mutual_information(rho, gap, eps)
    error = target - f
    return error * error, 0.0, 2 * error * (1 - gap) * inverse


@jit
def square_entry(rho, eps, target):
    """The fourth power: the dependency is rho^2."""
    square = rho * rho
    return square * square, 4 * square * rho


@jit
def square_positive(rho, gap, eps, target):
    """The same for a positive."""
    error = target - rho * rho
    return error * error, -4 * error * rho, 0.0


@jit
def correlation_entry(rho, eps, target):
    """The square: the dependency is rho."""
    return rho * rho, 2 * rho


@jit
def correlation_positive(rho, gap, eps, target):
    """The same for a positive."""
    error = target - rho
    return error * error, -2 * error, 0.0


LOSSES["smi_mutual_information"] = PairLoss(
    information_entry,
    information_positive,
    centre=True,
    near=squared_information_near,
    near_holds=is_near,
)
LOSSES["smi_squared_correlation"] = PairLoss(square_entry, square_positive, centre=True)
LOSSES["smi_correlation"] = PairLoss(correlation_entry, correlation_positive, centre=True)


@implementation("smi", "triton", fused=True)
def fused(
    hp: SMI, *views: Tensor, strategy: str | None = None, precision: str = "ieee"
) -> dict[str, Tensor]:
    """Tiles of the stacked Gram that never leave the chip, or only their gradient does."""
    if len(views) != 2:
        raise NotImplementedError(
            f"the kernels take two views, got {len(views)}; use implementation='gram'"
        )
    name = f"smi_{hp.dependency}"
    on, off = pair_terms(name, *views, hp.eps, hp.target, 0.0, strategy, precision)
    batch = len(views[0])
    mean = hp.reduction == "mean"
    return {
        "on_diagonal": on / (batch if mean else 1),
        "off_diagonal": off * (hp.lambda_ / (3 * batch * (batch - 1) if mean else 1)),
    }


@cost_model("smi", "triton")
def cost(problem: Problem, strategy: str | None = None, precision: str = "ieee") -> Cost:
    """Each pair once, and once more for the gradient of either of its rows."""
    return gram_cost("smi", problem, [layout((problem.batch, problem.dim))])
