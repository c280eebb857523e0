"""Energy of a call, where the device counts it."""

import time
from collections.abc import Callable
from typing import Any

import torch

from lossbench.bench.measuring.nvml import energy_mj

LEAST_S = 2.0
"""The counter of an NVIDIA GPU moves about ten times a second: known to a twentieth."""


def millijoules(call: Callable[[], Any], device: str) -> float | None:
    """Energy of one of many calls in a row; None where nothing counts it."""
    before = energy_mj(device)
    if before is None:
        return None
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < LEAST_S:
        call()
        torch.cuda.synchronize()
        calls += 1
    after = energy_mj(device)
    return None if after is None else (after - before) / calls
