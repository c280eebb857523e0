"""``lossbench`` with a second process whose losses are wrong, or that runs out of memory."""

import os

import torch

from lossbench.bench.interface import cli
from lossbench.bench.running import distributed, job

right = distributed._loss


def wrong(case, world):
    loss = right(case, world)

    def called(*views):
        if os.environ["WRONG"] == "fails":
            raise MemoryError("made up")
        value = loss(*views)
        if os.environ["WRONG"] == "value":
            return value + 1
        return value + 0.1 * (views[0] - views[0].detach()).sum()  # 0, with a gradient

    return called


if os.environ["RANK"] == "1":
    distributed._loss = wrong
if os.environ["WRONG"] == "fails":
    job.PATIENCE = type(job.PATIENCE)(seconds=5)
torch.set_num_threads(1)
cli.main()
