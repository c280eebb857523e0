"""Energy of a call, where the device counts it."""

import time
from collections.abc import Callable
from typing import Any

import torch

LEAST_S = 2.0
"""The counter of an NVIDIA GPU moves about ten times a second: known to a twentieth."""


def millijoules(call: Callable[[], Any], device: str) -> float | None:
    """Energy of one of many calls in a row; None where nothing counts it."""
    before = _counter(device)
    if before is None:
        return None
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < LEAST_S:
        call()
        torch.cuda.synchronize()
        calls += 1
    after = _counter(device)
    return None if after is None else (after - before) / calls


def _counter(device: str) -> int | None:
    """Millijoules since the driver was loaded."""
    if device != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    except Exception:  # NVML is optional: no package, no library, no counter or no permission
        return None
