"""NT-Xent, the loss of SimCLR (Chen et al. 2020, arXiv:2002.05709, eq. 1).

s_uv[i, j] = <u_i, v_j> / temperature on L2-normalised rows
L = mean over the 2N anchors of [ logsumexp over the other 2N - 1 - s(anchor, its positive) ]
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from losses.costs import Cost, all_gather_bytes
from losses.matrix import unit_rows
from losses.registry import cost_model, implementation, register
from losses.require import require_positive


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
def reference_cost(batch: int, dim: int, views: int) -> Cost:
    """Three N x N products over D features, and two gradients for each."""
    product = batch**2 * dim
    return Cost(3 * product, 6 * product, 2 * batch * (2 * batch - 2))
