"""What NVIDIA's management library says of the GPU: clocks, power, temperature, energy, throttling.

It is only asked; no setting is ever changed.
"""

from typing import Any

import torch

IDLE, APPLICATION_CLOCKS = 0x1, 0x2
"""Reasons to lower the clocks that are no trouble: nothing to do, or a setting of the owner."""


def state(device: str) -> dict[str, Any]:
    """Clocks in MHz, power in W, temperature in degrees Celsius, and why clocks are lowered.

    Returns:
        ``sm_mhz``, ``memory_mhz``, ``power_w``, ``temperature_c`` and ``throttled``, the reasons,
        "" for none; nothing where there is no library, no permission or no such counter.
    """
    found: dict[str, Any] = {}
    if device != "cuda":
        return found
    try:
        import pynvml as nvml

        handle = _handle(nvml)
        found["sm_mhz"] = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
        found["memory_mhz"] = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)
        found["power_w"] = nvml.nvmlDeviceGetPowerUsage(handle) / 1e3
        found["temperature_c"] = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
        found["throttled"] = reasons(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle), nvml)
    except Exception:  # whatever the library, the driver or the container does not offer
        return found
    return found


def reasons(mask: int, nvml: Any) -> str:
    """Names of the bits of a mask of throttle reasons that are trouble."""
    prefix = "nvmlClocksThrottleReason"
    names = {getattr(nvml, name): name.removeprefix(prefix) for name in dir(nvml) if prefix in name}
    trouble = mask & ~(IDLE | APPLICATION_CLOCKS)
    bits = [bit for bit in sorted(names) if bit and bit & (bit - 1) == 0 and trouble & bit]
    return ", ".join(names[bit] for bit in bits)


def energy_mj(device: str) -> int | None:
    """Millijoules since the driver was loaded; None where nothing counts them."""
    if device != "cuda":
        return None
    try:
        import pynvml as nvml

        return int(nvml.nvmlDeviceGetTotalEnergyConsumption(_handle(nvml)))
    except Exception:  # as above
        return None


def _handle(nvml: Any) -> Any:
    """The GPU that torch computes on."""
    nvml.nvmlInit()
    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    return nvml.nvmlDeviceGetHandleByUUID(uuid)
