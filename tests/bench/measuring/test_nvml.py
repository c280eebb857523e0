"""What is asked of NVIDIA's library, by one that is made up."""

import sys
from types import SimpleNamespace

import pytest
import torch

from lossbench.bench.measuring import nvml


@pytest.fixture
def library(monkeypatch):
    made_up = SimpleNamespace(
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        NVML_TEMPERATURE_GPU=0,
        nvmlClocksThrottleReasonNone=0,
        nvmlClocksThrottleReasonGpuIdle=1,
        nvmlClocksThrottleReasonApplicationsClocksSetting=2,
        nvmlClocksThrottleReasonSwPowerCap=4,
        nvmlClocksThrottleReasonHwSlowdown=8,
        nvmlClocksThrottleReasonAll=15,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetClockInfo=lambda handle, which: {1: 1980, 2: 3201}[which],
        nvmlDeviceGetPowerUsage=lambda handle: 350_500,
        nvmlDeviceGetTemperature=lambda handle, which: 61,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 4,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 123,
    )
    monkeypatch.setitem(sys.modules, "pynvml", made_up)
    properties = SimpleNamespace(uuid="abc")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    return made_up


def test_state_has_units_and_reasons(library):
    assert nvml.state("cuda") == {
        "sm_mhz": 1980,
        "memory_mhz": 3201,
        "power_w": 350.5,
        "temperature_c": 61,
        "throttled": "SwPowerCap",
    }
    assert nvml.energy_mj("cuda") == 123


@pytest.mark.parametrize(
    ("mask", "said"),
    [(0, ""), (1, ""), (2, ""), (3, ""), (8, "HwSlowdown"), (13, "SwPowerCap, HwSlowdown")],
)
def test_idle_and_chosen_clocks_are_no_trouble(library, mask, said):
    assert nvml.reasons(mask, library) == said


def test_what_is_known_before_a_counter_is_missing_is_kept(library):
    del library.nvmlDeviceGetTemperature
    assert nvml.state("cuda") == {"sm_mhz": 1980, "memory_mhz": 3201, "power_w": 350.5}


def test_without_a_gpu_or_a_library_nothing_is_known(monkeypatch):
    assert nvml.state("cpu") == {}
    assert nvml.energy_mj("cpu") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.state("cuda") == {}
    assert nvml.energy_mj("cuda") is None
