"""A pretraining step: that it runs, what it takes, and how little of that is the harness."""

from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from lossbench.bench.comparing.paired import time_ratio
from lossbench.bench.pretraining import records
from lossbench.bench.pretraining.batches import Batches
from lossbench.bench.pretraining.config import from_preset
from lossbench.bench.pretraining.images import open_images
from lossbench.bench.pretraining.trainer import Trainer

OVERHEAD = 1.01
"""Time of our step over that of a bare loop; more is claimed only when all of the interval that
claims rest on is."""
STEPS = 10**6


def bare_step(trainer: Trainer, batches: Batches) -> Tensor:
    """The same work as a training script has it: no phases, no checks, one backward pass."""
    images = batches.batch_at(trainer.step)
    with torch.no_grad():
        views = trainer.views(images)
    value = trainer.loss(*(trainer.network(view) for view in views))
    value.backward()
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    return value.detach()


@pytest.mark.lossbench
@pytest.mark.parametrize("loss", ["smi", "barlow_twins"])
def test_step(benchmark, loss):
    config = from_preset("digits", loss=loss, implementation="gram", batch=64)
    trainer = Trainer(config, STEPS, "cpu")
    batches = Batches(open_images("digits", config.image_size), config.batch, config.seed)

    def ours() -> tuple[Tensor]:
        value = trainer.train_step(batches.start(trainer.step))
        trainer.phases()
        return (torch.tensor(value),)

    def bare() -> tuple[Tensor]:
        return (bare_step(trainer, batches),)

    ours()
    benchmark.pedantic(ours, rounds=3)
    overhead = time_ratio(ours, bare, "cpu")
    benchmark.extra_info.update(records.describe(config, "cpu", 1))
    benchmark.extra_info["harness_overhead"] = asdict(overhead)
    assert overhead.least < OVERHEAD, f"the harness takes {overhead.value - 1:.1%} of a step"
