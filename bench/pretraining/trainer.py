"""One training step, phase by phase."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lossbench import losses
from lossbench.bench.measuring.phases import PhaseClock
from lossbench.bench.pretraining.augmentations import TwoViews
from lossbench.bench.pretraining.batch_norm import make_global
from lossbench.bench.pretraining.config import Config
from lossbench.bench.pretraining.models import Network
from lossbench.bench.pretraining.optimizers import make_optimizer, set_rate
from lossbench.bench.running.job import ALONE, Job
from lossbench.losses.collectives import World
from lossbench.losses.distributed import distribute

MIXED = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What mixed precision computes most of the network in."""


def _seed(seed: int, place: int) -> int:
    """Of one draw: torch's generator on the CPU keeps 32 bits of a seed, so both must be mixed."""
    return int(np.random.SeedSequence(seed, spawn_key=(place,)).generate_state(1)[0])


class TimedNetwork(nn.Module):
    """A network of two views whose parts are timed.

    Args:
        network: encoder and projector.
        clock: told how long each takes.
    """

    def __init__(self, network: Network, clock: PhaseClock) -> None:
        super().__init__()
        self.network, self._clock = network, clock

    def forward(self, views: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Two views (N, 3, S, S), each with its own batch statistics -> z_a, z_b (N, D)."""
        with self._clock("encoder_forward"):
            features = [self.network.encoder(view) for view in views]
        with self._clock("projector_forward"):
            return tuple(self.network.projector(each) for each in features)


@contextmanager
def _fp32_as(precision: str) -> Iterator[None]:
    """Matrix products and convolutions of fp32 in "ieee" fp32, or in "tf32".

    On a GPU torch's convolutions are in TF32 unless they are told otherwise.
    """
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = precision
    try:
        with losses.products(precision):
            yield
    finally:
        convolutions.fp32_precision = before


def _in_parallel(network: nn.Module) -> DistributedDataParallel:
    # each process keeps its own running statistics: to share them is to wait outside all phases
    ddp = DistributedDataParallel(network, broadcast_buffers=False)
    ddp._set_ddp_runtime_logging_sample_rate(1)  # of every step, see Trainer.phases
    return ddp


class Trainer:
    """Network, loss and optimizer of a configuration.

    The graph is cut at the embeddings, so that the loss's share of the backward pass is known; the
    gradients are the same.

    Args:
        config: what is trained.
        steps: of the optimizer in the whole schedule.
        device: "cpu" or "cuda".
        job: the processes that train it together.
    """

    def __init__(self, config: Config, steps: int, device: str, job: Job = ALONE) -> None:
        self.config, self.steps, self.device, self.job = config, steps, device, job
        self.clock = PhaseClock(device)
        torch.manual_seed(config.seed)  # every process starts from the same weights
        network = Network(config)
        if config.global_batch_norm and job.world > 1:
            make_global(network, device)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.network = network.to(device)
        self.network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's own omission
        if config.compiled:
            self.network.encoder.compile()
            self.network.projector.compile()
        timed = TimedNetwork(self.network, self.clock)
        self.forward = _in_parallel(timed) if job.world > 1 else timed
        self._layout = layout
        self.views = TwoViews(config.augmentation, config.image_size).to(device)
        self.loss = self._make_loss().to(device)
        self.optimizer = make_optimizer(config, self.network, self.loss)
        self.scaler = torch.amp.GradScaler(device, enabled=config.precision == "fp16")
        self.step = 0
        self.skipped = 0

    def _make_loss(self) -> nn.Module:
        c = self.config
        loss = losses.create(c.loss, c.implementation, **c.hyperparameters, **c.options)
        if self.job.world == 1:
            return loss
        if any(True for _ in loss.parameters()):
            raise ValueError(f"{loss.name} has parameters of its own: it is trained on one device")
        world = World(waiting=partial(self.clock, "communication"))
        return distribute(loss, c.distribution, world)

    def phases(self) -> dict[str, float]:
        """Milliseconds of each phase since the last time.

        What the backward pass of the network waited for other processes is told apart by DDP, which
        knows it of the step before.
        """
        found = self.clock.take()
        if isinstance(self.forward, DistributedDataParallel):
            known = self.forward._get_ddp_logging_data()
            names = "backward_comm_time", "backward_compute_comm_overlap_time"
            whole, hidden = (known.get(name, 0) / 1e6 for name in names)
            waited = min(max(whole - hidden, 0.0), found["backward"])
            found["backward"] -= waited
            found["gradient_reduction"] += waited
        return found

    def train_step(self, batches: Iterator[Tensor]) -> float:
        """One step of the optimizer.

        Args:
            batches: uint8 images (N, 3, H, W).

        Returns:
            The loss, the mean of all processes'; where it is not finite, no weight was changed.
        """
        with _fp32_as("tf32" if self.config.precision == "tf32" else "ieee"):
            value = self._accumulate(batches)
        with self.clock("gradient_reduction"):
            value = self.job.mean(value)
        with self.clock("optimizer"):
            set_rate(self.optimizer, self.config, self.step, self.steps, self.job.world)
            finite = bool(torch.isfinite(value))
            if finite:
                self.scaler.step(self.optimizer)
                self.scaler.update()
            else:
                self.skipped += 1
            self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(value)

    def _accumulate(self, batches: Iterator[Tensor]) -> Tensor:
        """The gradients of a step, and the mean loss of its batches."""
        count = self.config.accumulation
        total = torch.zeros((), device=self.device)
        for number in range(count):
            with self.clock("data"):
                images = next(batches).to(self.device, non_blocking=True)
            with self.clock("augmentation"):
                views = self._augment(images, number)
            last = number == count - 1
            with nullcontext() if last else self._without_reduction():
                total += self._forward_and_backward(views) / count
        return total

    def _augment(self, images: Tensor, number: int) -> tuple[Tensor, Tensor]:
        # the step alone says what is drawn, so that a resumed run draws the same
        config = self.config
        place = (self.step * config.accumulation + number) * self.job.world + self.job.rank
        torch.manual_seed(_seed(config.seed, place))
        with torch.no_grad():
            first, second = self.views(images)
        return first.contiguous(memory_format=self._layout), second.contiguous(
            memory_format=self._layout
        )

    def _forward_and_backward(self, views: tuple[Tensor, Tensor]) -> Tensor:
        with self._autocast():
            embeddings = self.forward(views)
        leaves = [each.detach().requires_grad_() for each in embeddings]
        with self.clock("loss_forward"):
            value = self.loss(*leaves)
        with self.clock("loss_backward"):
            scaled = self.scaler.scale(value / self.config.accumulation)
            own = list(self.loss.parameters())
            gradients = torch.autograd.grad(scaled, [*leaves, *own])
            for parameter, gradient in zip(own, gradients[len(leaves) :], strict=True):
                before = parameter.grad
                parameter.grad = gradient if before is None else before + gradient
        with self.clock("backward"):
            torch.autograd.backward(embeddings, gradients[: len(leaves)])
        found: Tensor = value.detach()
        return found

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = MIXED.get(self.config.precision)
        return torch.autocast(self.device, dtype) if dtype else nullcontext()

    def _without_reduction(self) -> AbstractContextManager[Any]:
        """The processes' gradients are added up once a step."""
        ddp = self.forward
        return ddp.no_sync() if isinstance(ddp, DistributedDataParallel) else nullcontext()

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, but the images."""
        return {
            "step": self.step,
            "skipped": self.skipped,
            "network": self.network.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.network.load_state_dict(state["network"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.skipped = state["step"], state["skipped"]
