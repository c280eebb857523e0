"""The processes of a job, as torchrun starts them: one on each device."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from lossbench.bench.predicting import links
from lossbench.bench.predicting.calibrate import calibrate
from lossbench.bench.predicting.ceilings import Ceilings

PATIENCE = timedelta(seconds=60)
"""Without a word of another process: it is gone, and the job ends."""
ALONE_FOR = timedelta(hours=6)
"""What the first process does alone, such as judging features, may take so long."""


@dataclass(frozen=True)
class Job:
    """This process among those of its job.

    Attributes:
        rank: its number.
        world: how many there are.
        patient: group in which the others wait for what the first process does alone.
    """

    rank: int = 0
    world: int = 1
    patient: "dist.ProcessGroup | None" = None

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a scalar over all processes: what is not finite for one is so for all."""
        if self.world == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.world

    def most(self, value: float) -> float:
        """The largest of all processes' values."""
        if self.world == 1:
            return value
        device = torch.accelerator.current_accelerator() if dist.get_backend() == "nccl" else "cpu"
        largest = torch.tensor(value, dtype=torch.float64, device=device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return largest.item()

    def agree(self, decision: Any) -> Any:
        """What the first process decided."""
        if self.world == 1:
            return decision
        box = [decision]
        dist.broadcast_object_list(box, group=self.patient)
        return box[0]

    def all_of(self, word: Any) -> list[Any]:
        """What each process says."""
        if self.world == 1:
            return [word]
        words: list[Any] = [None] * self.world
        dist.all_gather_object(words, word, group=self.patient)
        return words

    def calibration(self, device: str) -> dict[str, Any]:
        """Ceilings, and the link between processes, as a header has them: all measure at once."""
        ceilings = self._ceilings(device).describe()
        return ceilings if self.world == 1 else {**ceilings, **links.measure(device).describe()}

    def calibrate_again(self, device: str) -> Ceilings:
        """Ceilings as those of ``calibration``: the first process asks, ``follow`` joins in."""
        self.agree(True)
        return self._ceilings(device)

    def follow(self, device: str) -> None:
        """Calibrate with the first process as often as it does, until it goes on."""
        while self.agree(None):
            self._ceilings(device)

    def go_on(self) -> None:
        """Tell the processes that ``follow`` that all is calibrated."""
        self.agree(False)

    def _ceilings(self, device: str) -> Ceilings:
        """A process that is alone measures as several do, so that jobs can be compared."""
        return calibrate(device, dist.barrier if self.world > 1 else lambda: None)


ALONE = Job()


@contextmanager
def joined(device: str) -> Iterator[Job]:
    """Join the job that torchrun, or a launcher like it, started, if it did.

    Args:
        device: "cpu" or "cuda".
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Job()
        return
    if device == "cuda":
        # a launcher may show each process its own GPU only
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Job(dist.get_rank(), world, dist.new_group(backend="gloo", timeout=ALONE_FOR))
    finally:
        dist.destroy_process_group()
