"""Small matrix helpers that several losses share."""

import torch
from torch import Tensor


def off_diagonal(matrix: Tensor) -> Tensor:
    """Off-diagonal entries of an n x n matrix, as an (n - 1) x n view without a copy.

    Dropping the first entry and folding into rows of n + 1 puts the diagonal in the last column.
    """
    n = matrix.shape[0]
    return matrix.flatten()[1:].view(n - 1, n + 1)[:, :-1]


def unit_rows(z: Tensor, zero_at: Tensor | float = 0.0) -> Tensor:
    """Scale each row of ``z`` (N x D) to length one; rows that have no direction become zero.

    Args:
        z: N x D.
        zero_at: N x 1 or scalar; a row whose norm is at or below it counts as zero. Such a row
            gets a zero gradient rather than the 1/0 of the plain quotient.
    """
    norm = torch.linalg.vector_norm(z, dim=1, keepdim=True)
    zero = norm <= zero_at
    return (z / norm.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)
