"""Collectives that gradients pass through, and the group of ranks they run in.

Every rank returns the loss L of the batch of all W ranks, and its backward pass makes the gradient
of the sum of what the ranks return: W dL/dz for its own z. DDP, which averages the gradients of
parameters over the ranks, makes of that the gradient of L.

Where what follows a collective is the same on all ranks, so is the gradient that arrives, and
nothing needs to be sent for the backward pass. That holds as long as every rank goes on with the
loss in the same way, as DDP and gradient scalers do.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd import Function
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class World:
    """The ranks that hold one global batch together.

    Attributes:
        group: process group, None for that of all processes.
        waiting: entered around every exchange: its time can be told from that of the loss.
    """

    group: "dist.ProcessGroup | None" = None
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext

    def __post_init__(self) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError(
                "torch.distributed is not initialised: start the script with torchrun and call "
                "torch.distributed.init_process_group()"
            )
        if self.rank < 0:
            raise ValueError(f"process {dist.get_rank()} is not one of the ranks of the group")

    @property
    def size(self) -> int:
        """Number of ranks, W."""
        return dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        """Which of them this is; its samples come after those of the ranks before it."""
        return dist.get_rank(self.group)

    def exchange(self, facts: list[int]) -> list[list[int]]:
        """The facts of every rank; on the CPU, if the group can: no GPU has to be waited for."""
        on_cpu = "cpu:" in dist.get_backend_config(self.group)
        device = torch.device("cpu") if on_cpu else torch.accelerator.current_accelerator()
        return self.gather(torch.tensor([[facts]], device=device))[0].tolist()

    def gather(self, views: Tensor) -> Tensor:
        """The views of all ranks, V x WN x D, from V x N x D; no gradient passes."""
        count, batch, *rest = views.shape
        parts = views.new_empty(self.size * count, batch, *rest)
        self._all_gather(parts, views.detach().contiguous())
        parts = parts.view(self.size, count, batch, *rest).transpose(0, 1)
        return parts.reshape(count, self.size * batch, *rest)

    def gather_with_gradient(self, views: Tensor) -> Tensor:
        """The same; the gradient is summed over the ranks, each of which gets its own samples'."""
        return _Gather.apply(self, views)

    def sum(self, part: Tensor) -> Tensor:
        """Sum over the ranks, of which all that follows is the same on every rank."""
        return _Sum.apply(self, True, part)

    def sum_used_apart(self, part: Tensor) -> Tensor:
        """Sum over the ranks, each of which uses it on samples of its own: gradients are summed."""
        return _Sum.apply(self, False, part)

    def sum_each(self, **parts: Tensor) -> dict[str, Tensor]:
        """``sum`` of scalars, in one exchange."""
        return dict(zip(parts, self.sum(torch.stack(list(parts.values()))), strict=True))

    def centred(self, *views: Tensor) -> Tensor:
        """V x N x D views less the mean of each feature over the samples of all ranks.

        No gradient passes through the mean: it is for losses of products of centred samples alone,
        whose gradient for those adds up to zero over the batch.
        """
        own = torch.stack(views)
        return own - self.total(own.sum(dim=1, keepdim=True)) / (self.size * own.shape[1])

    def total(self, part: Tensor) -> Tensor:
        """Sum over the ranks; no gradient passes."""
        total = part.detach().clone(memory_format=torch.contiguous_format)
        self._all_reduce(total)
        return total

    def _all_reduce(self, total: Tensor) -> None:
        with self.waiting():
            dist.all_reduce(total, group=self.group)

    def _all_gather(self, parts: Tensor, own: Tensor) -> None:
        # its name since torch 2.13, which deprecates that of before
        all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        with self.waiting():
            all_gather(parts, own, group=self.group)

    def _reduce_scatter(self, own: Tensor, parts: Tensor) -> None:
        reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
        with self.waiting():
            reduce_scatter(own, parts, group=self.group)


class Imagined(World):
    """Ranks that are not there, but for this one: what they would send has a shape and no values.

    What a rank computes, holds and exchanges can be counted on it, whatever the number of ranks.

    Args:
        size: number of ranks, W.

    Attributes:
        exchanges: kind and bytes of each, "gather" (either way) or "reduce"; by ring algorithms.
    """

    def __init__(self, size: int) -> None:
        object.__setattr__(self, "_size", size)
        object.__setattr__(self, "exchanges", [])

    exchanges: list[tuple[str, float]]

    @property
    def size(self) -> int:
        """Number of ranks, W."""
        return int(object.__getattribute__(self, "_size"))

    @property
    def rank(self) -> int:
        """The first of them."""
        return 0

    def exchange(self, facts: list[int]) -> list[list[int]]:
        """All ranks say the same."""
        return [facts]

    def _all_reduce(self, total: Tensor) -> None:
        self.exchanges.append(("reduce", 2 * (self.size - 1) / self.size * total.nbytes))

    def _all_gather(self, parts: Tensor, own: Tensor) -> None:
        self.exchanges.append(("gather", (self.size - 1) * own.nbytes))

    def _reduce_scatter(self, own: Tensor, parts: Tensor) -> None:
        self.exchanges.append(("gather", (self.size - 1) * own.nbytes))


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, world: World, views: Tensor) -> Tensor:
        ctx.world = world
        return world.gather(views)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        world, count = ctx.world, len(gradient)
        parts = gradient.unflatten(1, (world.size, -1)).transpose(0, 1).flatten(0, 1)
        own = torch.empty_like(parts[:count])
        world._reduce_scatter(own, parts.contiguous())
        return None, own


class _Sum(Function):
    @staticmethod
    def forward(ctx: Any, world: World, shared: bool, part: Tensor) -> Tensor:
        ctx.world, ctx.shared = world, shared
        return world.total(part)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        world = ctx.world
        return None, None, gradient * world.size if ctx.shared else world.total(gradient)
