"""The losses as their authors' code computes them, sharing nothing with ``losses``."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional


def smi(
    *views: Tensor,
    target: float = 1.0,
    lambda_: float = 10.0,
    eps: float = 1e-6,
    reduction: str = "mean",
    dependency: str = "mutual_information",
) -> Tensor:
    """Eqs. 1 to 5, on the correlation coefficients of all rows of all views at once."""
    n = len(views[0])
    rho = torch.corrcoef(torch.cat(views)).nan_to_num(0.0)
    index = range(len(views))
    block = {(u, v): rho[u * n : (u + 1) * n, v * n : (v + 1) * n] for u in index for v in index}

    def depend(r: Tensor) -> Tensor:
        if dependency == "correlation":
            return r
        return r**2 if dependency == "squared_correlation" else -torch.log(1 - r**2 + eps) / 2

    reduce = torch.mean if reduction == "mean" else torch.sum
    different = ~torch.eye(n, dtype=torch.bool)
    on = [
        reduce((target - depend(block[pair].diagonal())) ** 2)
        for pair in itertools.combinations(index, 2)
    ]
    off = [
        reduce(depend(block[pair][different]) ** 2)
        for pair in itertools.combinations_with_replacement(index, 2)
    ]
    return reduce(torch.stack(on)) + lambda_ * reduce(torch.stack(off))


def barlow_twins(z1: Tensor, z2: Tensor, lambda_: float = 0.0051, eps: float = 1e-5) -> Tensor:
    """facebookresearch/barlowtwins ``main.py``, one process."""
    bn = nn.BatchNorm1d(z1.shape[1], eps=eps, affine=False).to(z1)
    c = bn(z1).T @ bn(z2)
    c.div_(len(z1))
    on_diag = torch.diagonal(c).add_(-1).pow_(2).sum()
    return on_diag + lambda_ * _off_diagonal(c).pow_(2).sum()


def vicreg(
    x: Tensor,
    y: Tensor,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    eps: float = 0.0001,
) -> Tensor:
    """facebookresearch/vicreg ``main_vicreg.py``, one process."""
    n, num_features = x.shape
    repr_loss = functional.mse_loss(x, y)
    x = x - x.mean(dim=0)
    y = y - y.mean(dim=0)
    std_x = torch.sqrt(x.var(dim=0) + eps)
    std_y = torch.sqrt(y.var(dim=0) + eps)
    std_loss = torch.mean(torch.relu(1 - std_x)) / 2 + torch.mean(torch.relu(1 - std_y)) / 2
    cov_x = (x.T @ x) / (n - 1)
    cov_y = (y.T @ y) / (n - 1)
    cov_loss = _off_diagonal(cov_x).pow(2).sum().div(num_features)
    cov_loss = cov_loss + _off_diagonal(cov_y).pow(2).sum().div(num_features)
    return invariance * repr_loss + variance * std_loss + covariance * cov_loss


def nt_xent(z1: Tensor, z2: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of each of the 2N anchors over the other 2N - 1 rows."""
    n = len(z1)
    z = functional.normalize(torch.cat([z1, z2]), dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(float("-inf"))
    positives = torch.arange(2 * n).roll(n)
    return functional.cross_entropy(logits, positives)


def spectral_contrastive(z1: Tensor, z2: Tensor, mu: float = 1.0, per_mu: bool = False) -> Tensor:
    """jhaochenz/spectral_contrastive_learning ``models/spectral.py``; it always divides by mu."""
    mask1 = (torch.norm(z1, p=2, dim=1) < mu**0.5).to(z1).unsqueeze(1)
    mask2 = (torch.norm(z2, p=2, dim=1) < mu**0.5).to(z2).unsqueeze(1)
    z1 = mask1 * z1 + (1 - mask1) * functional.normalize(z1, dim=1) * mu**0.5
    z2 = mask2 * z2 + (1 - mask2) * functional.normalize(z2, dim=1) * mu**0.5
    loss_part1 = -2 * torch.mean(z1 * z2) * z1.shape[1]
    square_term = torch.matmul(z1, z2.T) ** 2
    different = torch.triu(square_term, diagonal=1) + torch.tril(square_term, diagonal=-1)
    loss_part2 = torch.mean(different) * z1.shape[0] / (z1.shape[0] - 1)
    return (loss_part1 + loss_part2) / (mu if per_mu else 1)


def _off_diagonal(x: Tensor) -> Tensor:
    n = len(x)
    return x.flatten()[:-1].view(n - 1, n + 1)[:, 1:].flatten()


ORACLES = {
    "barlow_twins": barlow_twins,
    "nt_xent": nt_xent,
    "smi": smi,
    "spectral_contrastive": spectral_contrastive,
    "vicreg": vicreg,
}
"""By the names of our losses."""
