"""Operations of matrix products that torch's ``FlopCounterMode`` does not know, by stated formulas.

Distances between all rows are counted as the matrix product that gives the same distances, so that
the same loss has the same count however it is written. Decompositions are counted by Golub and Van
Loan, Matrix Computations, 4th edition: Cholesky n^3 / 3 FLOPs (4.2), LU 2 n^3 / 3 (3.2), a solve by
triangles n^2 for each right side (3.1), QR 2 m n^2 - 2 n^3 / 3 (5.2), symmetric eigenvalues
4 n^3 / 3, with vectors 9 n^3 (8.3), singular values 4 m n^2 - 4 n^3 / 3, with vectors
14 m n^2 + 8 n^3 (8.6), eigenvalues 10 n^3, with vectors 25 n^3 (7.5). m is the longer side.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
Formula = Callable[..., float]
"""Called as the operation is, with its result as ``out_val``: floating-point operations."""


def _pairs(x: Tensor, y: Tensor) -> int:
    """Of the product of all rows with all rows; of a batch, for each of it."""
    *batch, rows, depth = x.shape
    return 2 * prod(batch) * rows * y.shape[-2] * depth


def _sides(matrix: Tensor) -> tuple[int, int, int]:
    """Number of matrices, the longer side and the shorter one."""
    *batch, rows, columns = matrix.shape
    return prod(batch), max(rows, columns), min(rows, columns)


def _square(flops: float) -> Formula:
    """n^3 times a number."""

    def formula(matrix: Tensor, *args: Any, out_val: Any, **kwargs: Any) -> float:
        count, _, side = _sides(matrix)
        return count * flops * side**3

    return formula


def _solve(factors: float) -> Formula:
    """n^2 for each right side and triangle, after n^3 times a number."""

    def formula(matrix: Tensor, right: Tensor, *args: Any, out_val: Any, **kwargs: Any) -> float:
        count, _, side = _sides(matrix)
        columns = right.numel() / side / max(1, count)
        triangles = 2 if factors else 1
        return count * (factors * side**3 + triangles * side**2 * columns)

    return formula


def _lu_solve(
    factors: Tensor, pivots: Tensor, right: Tensor, *, out_val: Any, **kwargs: Any
) -> float:
    count, _, side = _sides(factors)
    return 2 * side * right.numel() if count else 0


def _qr(matrix: Tensor, *args: Any, out_val: Any, **kwargs: Any) -> float:
    count, m, n = _sides(matrix)
    return count * (2 * m * n**2 - 2 * n**3 / 3)


def _svd(
    matrix: Tensor, full: bool = False, compute_uv: bool = True, *, out_val: Any, **kwargs: Any
) -> float:
    count, m, n = _sides(matrix)
    return count * (14 * m * n**2 + 8 * n**3 if compute_uv else 4 * m * n**2 - 4 * n**3 / 3)


def _eigh(
    matrix: Tensor, uplo: str = "L", compute_v: bool = True, *, out_val: Any, **kwargs: Any
) -> float:
    count, _, n = _sides(matrix)
    return count * (9 * n**3 if compute_v else 4 * n**3 / 3)


FORMULAS: dict[Any, Formula] = {
    aten.mv: lambda matrix, *args, out_val, **kwargs: 2 * matrix.numel(),
    aten.addmv: lambda added, matrix, *args, out_val, **kwargs: 2 * matrix.numel(),
    aten._pdist_forward: lambda x, *args, out_val, **kwargs: _pairs(x, x),
    aten._pdist_backward: lambda g, x, *args, out_val, **kwargs: 2 * _pairs(x, x),
    aten._cdist_forward: lambda x, y, *args, out_val, **kwargs: _pairs(x, y),
    aten._cdist_backward: lambda g, x, y, *args, out_val, **kwargs: _pairs(x, y),
    aten._euclidean_dist: lambda x, y, *args, out_val, **kwargs: _pairs(x, y),
    aten.linalg_cholesky_ex: _square(1 / 3),
    aten.linalg_lu_factor_ex: _square(2 / 3),
    aten.linalg_inv_ex: _square(2),
    aten.cholesky_inverse: _square(2 / 3),
    aten._linalg_det: _square(2 / 3),
    aten._linalg_slogdet: _square(2 / 3),
    aten._linalg_solve_ex: _solve(2 / 3),
    aten.linalg_solve_triangular: _solve(0),
    aten.linalg_lu_solve: _lu_solve,
    aten.linalg_qr: _qr,
    aten._linalg_svd: _svd,
    aten._linalg_eigh: _eigh,
    aten.linalg_eig: _square(25),
    aten._linalg_eigvals: _square(10),
    aten.linalg_eigvals: _square(10),
}
