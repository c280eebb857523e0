"""``lossbench`` in a job whose first calibration is held up: any result beats it."""

import torch

from lossbench.bench.interface import cli
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.running import job

SLOW = Ceilings({"float32": 1e-3}, [(1, 1e-6)], 1e6)
right = job.calibrate
made: list[Ceilings] = []


def calibrate(device, barrier):
    made.append(right(device, barrier) if made else SLOW)
    return made[-1]


job.calibrate = calibrate
torch.set_num_threads(1)
cli.main()
