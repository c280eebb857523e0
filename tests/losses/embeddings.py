"""Batches that the tests of losses share."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from hypothesis import settings, strategies
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lossbench import losses

# No deadline, no memory of earlier runs: the outcome depends on the code alone.
repeatable = settings(deadline=None, derandomize=True, database=None, max_examples=30)

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def eager(name: str) -> list[str]:
    """Implementations with code of their own.

    ``compiled`` takes seconds for each new shape and ``auto`` runs one of the others: both have
    tests of their own, and so have fused kernels.
    """
    spec = losses.spec(name)
    return [n for n in spec.implementations if n not in ("auto", "compiled", *spec.fused)]


def with_implementation(implementation: str) -> list[str]:
    """Losses that have an implementation."""
    return [name for name in losses.names() if implementation in eager(name)]


def workspace(name: str, side: int, dtype: torch.dtype = torch.float32) -> int:
    """``workspace_bytes`` that cuts a Gram into tiles of ``side``."""
    arrays = importlib.import_module(f"lossbench.losses.{name}").TILE_ARRAYS
    return arrays * side**2 * dtype.itemsize


@contextmanager
def small_blocks(gram_side: int, cached_elements: int = 2**18) -> Iterator[None]:
    """Tiles of ``gram`` and blocks of rows so small that small batches have several, ragged."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch("lossbench.losses.tiles.GRAM_SIDE", gram_side))
        stack.enter_context(mock.patch("lossbench.losses.rows.CACHED_ELEMENTS", cached_elements))
        yield


def random_views(
    batch: int, dim: int, count: int = 2, seed: int = 0, noise: float = 0.5
) -> list[Tensor]:
    """Views of the same samples in fp64: shared signal plus noise of its own for each view."""
    generator = torch.Generator().manual_seed(seed)
    signal, *noises = torch.randn(count + 1, batch, dim, generator=generator, dtype=torch.float64)
    return [signal + noise * each for each in noises]


def degenerate_batches(large: float = 1e3) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> two views in fp64; ``large`` is how far they go from 1."""
    batch, dim = 6, 37
    a, b = random_views(batch, dim, seed=5)
    row = a[:1].expand(batch, -1)
    noise = random_views(batch, dim, seed=6)
    zero = torch.zeros_like(a)
    constants = torch.tensor([0.1, -0.3, 1 / 3, 7.7, 2.1, 1e-3], dtype=torch.float64)
    constant = constants[:, None].expand(-1, dim)
    half_dead = torch.where(torch.arange(dim) < dim // 2, 0.0, a)
    return {
        "collapsed": (row, row),
        "collapsed_each_view_elsewhere": (row, b[:1].expand(batch, -1)),
        "nearly_collapsed": (row + 1e-6 * noise[0], row + 1e-6 * noise[1]),
        "one_view_collapsed": (row, b),
        "constant_rows": (constant, constant),
        "constant_rows_of_one_view": (constant, b),
        "one_constant_row": (torch.cat([constant[:1], a[1:]]), b),
        "all_zero": (zero, zero),
        "one_view_zero": (zero, b),
        "one_zero_row": (torch.cat([zero[:1], a[1:]]), b),
        "duplicate_rows": (torch.cat([a[:3], a[:3]]), torch.cat([b[:3], b[:3]])),
        "identical_views": (a, a),
        "scaled_views": (a, a * (1 + 1e-7)),
        "nearly_identical_views": (a, a + 1e-6 * noise[0]),
        "anti_aligned_views": (a, -a),
        "dead_features": (half_dead, half_dead + 1e-6 * noise[0]),
        "one_feature": (a[:, :1], b[:, :1]),
        "tiny": (a / large, b / large),
        "huge": (large * a, large * b),
        "far_from_the_origin": (a + large, b - large),
    }


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


def value_and_gradients_checkpointed(
    loss: Callable[..., Tensor], reentrant: bool, *views: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """The same of a loss whose forward pass is done again by the backward pass."""
    leaves = [view.detach().clone().requires_grad_() for view in views]
    value = checkpoint(loss, *leaves, use_reentrant=reentrant)
    value.backward()
    return value.detach(), [leaf.grad for leaf in leaves]


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
