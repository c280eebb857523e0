"""What a network and its optimizer do in a step, followed without doing it."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer

from lossbench import losses
from lossbench.bench.counting.trace import Trace, follow
from lossbench.bench.pretraining.config import Config
from lossbench.bench.pretraining.models import Network
from lossbench.bench.pretraining.optimizers import make_optimizer
from lossbench.bench.pretraining.throughput import state_bytes
from lossbench.bench.pretraining.trainer import MIXED
from lossbench.losses.devices import as_if_on


@dataclass(frozen=True)
class Followed:
    """What one device does for a batch of two views.

    Attributes:
        state: ``parameter_bytes``, ``gradient_bytes`` and ``optimizer_bytes``.
        view_bytes: of the two views.
        forward: pass of the encoder and projector.
        backward: pass of both.
        optimizer: a step of it, in the steady state.
    """

    state: dict[str, int]
    view_bytes: int
    forward: Trace
    backward: Trace
    optimizer: Trace

    @property
    def macs(self) -> int:
        """Multiply-adds of both passes."""
        return self.forward.executed_macs + self.backward.executed_macs

    def peak_bytes(self, loss_bytes: int) -> int:
        """Held at most: weights, gradients, what the optimizer keeps, views and activations.

        Args:
            loss_bytes: held by the loss at most, beyond the embeddings.
        """
        kept = self.state["optimizer_bytes"]
        activations, _ = self.forward.held[-1]
        network = max(self.forward.peak_bytes, self.backward.peak_bytes, activations + loss_bytes)
        # the optimizer's trace holds what it keeps
        most = max(kept + network, self.optimizer.peak_bytes)
        return self.state["parameter_bytes"] + self.view_bytes + most


def follow_network(config: Config, device: str) -> Followed:
    """Follow the network of a configuration on one batch, and its optimizer.

    Args:
        config: of any loss; not ``compiled``.
        device: type of the device it is meant for, such as "cuda".

    Raises:
        NotImplementedError: settings that are not followed.
    """
    for name in ("compiled", "global_batch_norm"):
        if getattr(config, name):
            raise NotImplementedError(f"a network with {name} is not predicted: leave it out")
    products = "tf32" if config.precision == "tf32" else "ieee"
    with torch.device("meta"):
        network = Network(config)  # new weights are drawn by code that looks at values
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    with losses.products(products), fakes, as_if_on(device):
        network.to_empty(device="cpu")
        shape = (config.batch, 3, config.image_size, config.image_size)
        views = [torch.randn(shape) for _ in "ab"]
        optimizer = _optimizer(config, network, device)
        embeddings: list[Tensor] = []

        def forward() -> None:
            with _autocast(config):
                features = [network.encoder(view) for view in views]
                embeddings.extend(network.projector(each) for each in features)

        def backward() -> None:
            torch.autograd.backward(embeddings, [each.detach() for each in embeddings])
            embeddings.clear()

        live = (*views, *network.parameters(), *network.buffers())
        # the first step of an optimizer makes what it keeps
        calls = (forward, backward, optimizer.step, optimizer.step)
        there, back, _, step = follow(calls, live)
        view_bytes = sum(view.nbytes for view in views)
        return Followed(state_bytes(network, optimizer), view_bytes, there, back, step)


def _autocast(config: Config) -> AbstractContextManager[Any]:
    """Of a CPU, whose tensors these are: that of a GPU lowers much the same operations."""
    dtype = MIXED.get(config.precision)
    return torch.autocast("cpu", dtype) if dtype else nullcontext()


def _optimizer(config: Config, network: Network, device: str) -> Optimizer:
    """With one operation for many tensors, as torch has it on a GPU."""
    found = make_optimizer(config, network)
    for group in found.param_groups:
        if device == "cuda" and "foreach" in group:
            group["foreach"] = True
    return found
