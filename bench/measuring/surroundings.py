"""What surrounds a loss in training, within which it must give what it gives alone.

Only a GPU can tell this of kernels for GPUs; the same checks run on a CPU with any implementation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

Loss = Callable[[Tensor, Tensor], Tensor]
Views = tuple[Tensor, Tensor]
TOLERANCE = 1e-5
"""Relative: the same kernels on the same values may add up in another order."""


def check(loss: Loss, views: Views) -> dict[str, Any]:
    """Call a loss within each of ``CHECKS``.

    Args:
        loss: that gives the right value and gradient by itself.
        views: N x D each.

    Returns:
        ``works_within``, names of those in which value and gradient are the same; ``status`` and
        ``reason`` if one of them is not.
    """
    works, fails = [], []
    for name, within in CHECKS.items():
        if name == "CUDA graph" and views[0].device.type != "cuda":
            continue
        try:
            difference = within(loss, views)
        except Exception as error:  # whatever a compiler, a graph or a process group says
            line = (str(error).strip() or "no message").splitlines()[0]
            fails.append(f"{name}: {type(error).__name__}: {line}")
            continue
        if difference <= TOLERANCE:
            works.append(name)
        else:
            fails.append(f"{name}: value or gradient differ by {difference:.2g}")
    fields: dict[str, Any] = {"works_within": ", ".join(works)}
    if fails:
        fields.update(status="invalid", reason="; ".join(fails))
    return fields


def _compiled(loss: Loss, views: Views) -> float:
    torch._dynamo.reset()
    compiled = torch.compile(lambda z_a, z_b: 2 * loss(z_a, z_b), fullgraph=True)
    value, *gradients = _step(compiled, views)
    return _difference(_step(loss, views), [value / 2, *(g / 2 for g in gradients)])


def _autocast(loss: Loss, views: Views) -> float:
    """The embeddings come in the low precision; the loss must not follow further."""
    low = (views[0].to(torch.bfloat16), views[1].to(torch.bfloat16))

    def lowered(*leaves: Tensor) -> Tensor:
        with torch.autocast(views[0].device.type, torch.bfloat16):
            return loss(*leaves)

    return _difference(_step(loss, low), _step(lowered, low))


def _checkpointed(loss: Loss, views: Views) -> float:
    def recomputed(*leaves: Tensor) -> Tensor:
        value: Tensor = checkpoint(loss, *leaves, use_reentrant=False)
        return value

    return _difference(_step(loss, views), _step(recomputed, views))


def _data_parallel(loss: Loss, views: Views) -> float:
    """The gradient of a projector that DistributedDataParallel holds, of one process."""
    torch.manual_seed(0)
    plain = torch.nn.Linear(views[0].shape[1], 64, device=views[0].device)
    expected = _of_projector(loss, views, plain, plain)
    with _process_group(views[0].device.type):
        # gone when its processes' group is: it could wait for ever for what the group has ended
        found = _of_projector(loss, views, plain, DistributedDataParallel(plain))
    return _difference(expected, found)


def _of_projector(
    loss: Loss, views: Views, plain: torch.nn.Module, called: torch.nn.Module
) -> list[Tensor]:
    """Value, and gradients of the plain projector."""
    plain.zero_grad()
    z_a, z_b = called(torch.cat(views).float()).to(views[0].dtype).chunk(2)
    value = loss(z_a, z_b)
    value.backward()
    return [value.detach(), *(p.grad.clone() for p in plain.parameters() if p.grad is not None)]


@contextmanager
def _process_group(device: str) -> Iterator[None]:
    backend = "nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _captured(loss: Loss, views: Views) -> float:
    """A step as one graph, replayed on other values than those that it was captured with."""
    leaves = [view.detach().clone().requires_grad_() for view in views]
    expected = _step(loss, views)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            torch.autograd.grad(loss(*leaves), leaves)  # warms up, as capture needs it
    torch.cuda.current_stream().wait_stream(side)
    with torch.no_grad():
        for leaf in leaves:
            leaf.copy_(leaf.flip(0) * 0.5)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = loss(*leaves)
        gradients = torch.autograd.grad(value, leaves)
    with torch.no_grad():
        for leaf, view in zip(leaves, views, strict=True):
            leaf.copy_(view)
    graph.replay()
    return _difference(expected, [value.detach(), *gradients])


CHECKS: dict[str, Callable[[Loss, Views], float]] = {
    "torch.compile": _compiled,
    "autocast": _autocast,
    "checkpoint": _checkpointed,
    "DDP": _data_parallel,
    "CUDA graph": _captured,
}


def _step(loss: Loss, views: Views) -> list[Tensor]:
    leaves = [view.detach().requires_grad_() for view in views]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves)]


def _difference(expected: list[Tensor], found: list[Tensor]) -> float:
    """Largest relative distance of a value or gradient, nan of what is not a number."""
    distances = [
        torch.linalg.vector_norm(a.double() - b.double()) / torch.linalg.vector_norm(a.double())
        for a, b in zip(expected, found, strict=True)
    ]
    return float(torch.stack(distances).max())
