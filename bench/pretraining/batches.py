"""Batches of images in an order that depends on the step alone, so that a run resumes exactly."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import chain, count, cycle, islice

import numpy as np
import torch
from torch import Tensor

from lossbench.bench.pretraining.images import CorruptImageError, Images
from lossbench.bench.pretraining.pixels import InMemory


class Batches:
    """Batches of one of ``world`` devices.

    Each epoch is a new permutation; its last images that fill no batch of all devices are left out.
    Batch k of all devices together, in the order of their ranks, is the batch that one device would
    have of N x world.

    Args:
        images: what is read.
        batch: images per device and step, N.
        seed: of the order; all devices must have the same.
        rank: number of this device.
        world: devices.
        workers: threads that each read a batch ahead; 0: a batch is read when it is asked for.
            Images in memory need none.

    Attributes:
        images: what is read.
        steps_per_epoch: batches in an epoch.
        skipped: names of the images that could not be read, each once, in the batches so far.
        workers: threads that read ahead.

    Raises:
        ValueError: no batch can be made of these numbers.
    """

    def __init__(
        self,
        images: Images,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        _check(batch, seed, rank, world, workers)
        self.images = images
        self.steps_per_epoch = len(images) // (batch * world)
        self.skipped: list[str] = []
        if not self.steps_per_epoch:
            devices = f" on each of {world} devices" if world > 1 else ""
            raise ValueError(
                f"a batch of {batch}{devices} needs {batch * world} images and {images.name} has "
                f"{len(images)}; lower the batch"
            )
        self._batch, self._rank, self._world = batch, rank, world
        self.workers = 0 if isinstance(images, InMemory) else workers
        # two epochs: batches that are read ahead may be of the next
        self._order = lru_cache(2)(lambda epoch: epoch_order(len(images), seed, epoch))

    def batch_at(self, step: int) -> Tensor:
        """The batch of a step, counted from 0 over all epochs: uint8 (N, 3, size, size).

        Raises:
            ValueError: no image can be read.
        """
        return self._hand_over(*self._read(step))

    def start(self, step: int = 0) -> Iterator[Tensor]:
        """Batches from a step on, for ever; what they hold depends on no batch before.

        Raises:
            ValueError: no image can be read.
        """
        return self._read_ahead(step) if self.workers else map(self.batch_at, count(step))

    def _read_ahead(self, step: int) -> Iterator[Tensor]:
        pool = ThreadPoolExecutor(self.workers, "images")
        ahead: deque[Future[tuple[Tensor, list[str]]]] = deque()
        try:
            for number in count(step):
                ahead.append(pool.submit(self._read, number))
                if len(ahead) > self.workers:
                    yield self._hand_over(*ahead.popleft().result())
        finally:
            pool.shutdown(cancel_futures=True)

    def _hand_over(self, batch: Tensor, skipped: list[str]) -> Tensor:
        """Count what was skipped: only now, as a batch that was read ahead may never be used."""
        self.skipped += [name for name in skipped if name not in self.skipped]
        return batch

    def _read(self, step: int) -> tuple[Tensor, list[str]]:
        """The batch of a step, and the names of the images that others stand in for."""
        if isinstance(self.images, InMemory):
            return self.images.take(self._own(step)), []
        readable: list[np.ndarray] = []
        skipped: list[str] = []
        for index in chain(self._own(step).tolist(), self._spare(step)):
            try:
                readable.append(self.images[index].numpy())
            except CorruptImageError as error:
                skipped.append(error.name)
            if len(readable) == self._batch:
                break
        if not readable:
            raise ValueError(
                f"none of {len(skipped)} images of {self.images.name} can be read, "
                f"the first {skipped[0]}"
            )
        # where too few are left, better twice than a batch of another shape
        return torch.from_numpy(np.stack(list(islice(cycle(readable), self._batch)))), skipped

    def _own(self, step: int) -> Tensor:
        """Indices of the images of a step."""
        order, first = self._place(step)
        return order[first + self._rank * self._batch :][: self._batch]

    def _spare(self, step: int) -> Iterator[int]:
        """Indices of the images that stand in for corrupt ones, in turn.

        They follow in the epoch's order after the batch of all devices, and each device has its
        own, so that no image is twice in a batch.
        """
        order, first = self._place(step)
        for after in range(self._batch * self._world + self._rank, len(order), self._world):
            yield int(order[(first + after) % len(order)])

    def _place(self, step: int) -> tuple[Tensor, int]:
        """The order of a step's epoch, and where in it the batch of all devices begins."""
        epoch, number = divmod(step, self.steps_per_epoch)
        return self._order(epoch), number * self._batch * self._world


def epoch_order(images: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch: a permutation of the indices of all images."""
    # torch's generator looks at 32 bits of its seed on the CPU: both numbers are mixed into them
    mixed = int(np.random.SeedSequence(seed, spawn_key=(epoch,)).generate_state(1)[0])
    return torch.randperm(images, generator=torch.Generator().manual_seed(mixed))


def _check(batch: int, seed: int, rank: int, world: int, workers: int) -> None:
    for name, value, least in (
        ("batch", batch, 1),
        ("seed", seed, 0),
        ("world", world, 1),
        ("workers", workers, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not 0 <= rank < world:
        raise ValueError(f"rank must be from 0 to {world - 1}, got {rank}")
