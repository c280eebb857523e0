"""Batches that the tests of losses share."""

from collections.abc import Callable

import torch
from hypothesis import settings, strategies
from torch import Tensor

import losses

# No deadline, no memory of earlier runs: the outcome depends on the code alone.
repeatable = settings(deadline=None, derandomize=True, database=None, max_examples=30)

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def eager(name: str) -> list[str]:
    """Implementations with code of their own.

    ``compiled`` takes seconds for each new shape and ``auto`` runs one of the others: both have
    tests of their own.
    """
    return [each for each in losses.spec(name).implementations if each not in ("auto", "compiled")]


def random_views(
    batch: int, dim: int, count: int = 2, seed: int = 0, noise: float = 0.5
) -> list[Tensor]:
    """Views of the same samples in fp64: shared signal plus noise of its own for each view."""
    generator = torch.Generator().manual_seed(seed)
    signal, *noises = torch.randn(count + 1, batch, dim, generator=generator, dtype=torch.float64)
    return [signal + noise * each for each in noises]


def orthonormal_rows() -> Tensor:
    """Three rows of eight features, each of mean 0 and length 1, orthogonal to one another."""
    hadamard = torch.tensor(
        [[1, 1, 1, 1, -1, -1, -1, -1], [1, 1, -1, -1, 1, 1, -1, -1], [1, -1] * 4],
        dtype=torch.float64,
    )
    return hadamard / 8**0.5


def value_and_gradients(loss: Callable[..., Tensor], *views: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Value of ``loss`` and its gradient for every view; ``views`` stay untouched."""
    leaves = [view.detach().clone().requires_grad_() for view in views]
    value = loss(*leaves)
    return value.detach(), list(torch.autograd.grad(value, leaves))


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Norm of the error over the norm of what is expected."""
    error = torch.linalg.vector_norm(value.double() - expected.double())
    return (error / torch.linalg.vector_norm(expected.double())).item()


view_pairs = strategies.builds(
    random_views,
    batch=strategies.integers(2, 20),
    dim=strategies.integers(2, 40),
    seed=strategies.integers(0, 2**31),
)
"""Two views of 2 to 20 samples of 2 to 40 features."""

seeds = strategies.integers(0, 2**31).map(lambda seed: torch.Generator().manual_seed(seed))
"""Generators for the random part of a transformation."""
