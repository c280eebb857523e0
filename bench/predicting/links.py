"""Links between devices: how fast and how late what is sent over them arrives."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist

from lossbench.losses.collectives import World

SENT_BYTES = 2**25
"""Of a large message: more than a bucket of gradients."""
CALLS = 10


@dataclass(frozen=True)
class Link:
    """A link as collectives use it: gathers in rings over all devices, sums in trees.

    Attributes:
        all_gather_gb_per_s: 10^9 bytes/s that each device receives when tensors are gathered, or
            scattered.
        all_reduce_gb_per_s: the same when they are added up.
        step_us: microseconds from one device to the next.
    """

    all_gather_gb_per_s: float
    all_reduce_gb_per_s: float
    step_us: float = 0.0

    @classmethod
    def of(cls, calibration: Mapping[str, Any] | None) -> "Link | None":
        """The inverse of ``describe``; None where no link was measured."""
        if not calibration or "link_us" not in calibration:
            return None
        rates = calibration["link_gb_per_s"]
        return cls(rates["all_gather"], rates["all_reduce"], calibration["link_us"])

    def describe(self) -> dict[str, Any]:
        """JSON-safe fields."""
        rates = {"all_gather": self.all_gather_gb_per_s, "all_reduce": self.all_reduce_gb_per_s}
        return {"link_gb_per_s": rates, "link_us": self.step_us}

    def gather_ms(self, moved_bytes: float, world: int, rounds: int = 2) -> float:
        """Milliseconds of gathering, and of scattering what comes back.

        Args:
            moved_bytes: received by each device.
            world: devices.
            rounds: 1 if nothing comes back.
        """
        return self._ms(self.all_gather_gb_per_s, moved_bytes, rounds * (world - 1))

    def reduce_ms(self, moved_bytes: float, world: int) -> float:
        """Milliseconds of adding up, up a tree and down again; arguments as ``gather_ms``."""
        return self._ms(self.all_reduce_gb_per_s, moved_bytes, _tree_steps(world))

    def _ms(self, rate: float, moved_bytes: float, steps: int) -> float:
        return moved_bytes / rate / 1e6 + steps * self.step_us / 1e3 if moved_bytes else 0.0


def _tree_steps(world: int) -> int:
    return 2 * (world - 1).bit_length()


def measure(device: str) -> Link:
    """Measure the link between the processes of this job; all of them call it.

    Args:
        device: "cpu" or "cuda".
    """
    job = World()
    large = torch.zeros(1, SENT_BYTES // 4096, 1024, device=device)
    part = large[:, : large.shape[1] // job.size].contiguous()
    one = torch.zeros(1, device=device)
    others = job.size - 1
    gather_s = _seconds(device, lambda: job.gather(part))
    reduce_s = _seconds(device, lambda: dist.all_reduce(large))
    return Link(
        all_gather_gb_per_s=others * part.nbytes / gather_s / 1e9,
        all_reduce_gb_per_s=2 * others / job.size * large.nbytes / reduce_s / 1e9,
        step_us=_seconds(device, lambda: dist.all_reduce(one)) / _tree_steps(job.size) * 1e6,
    )


def _seconds(device: str, collective: Callable[[], object]) -> float:
    """Mean seconds of a collective, which every process calls as often."""
    collective()  # connects them
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(CALLS):
        collective()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / CALLS
