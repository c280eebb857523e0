"""What is said of a step: rates, shares, counts, bytes, and extrapolations."""

import pytest
import torch
from torch import nn

from lossbench.bench.measuring.phases import PHASES
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.pretraining import throughput

STEP = dict.fromkeys(PHASES, 1.0) | {"encoder_forward": 12.0, "step": 20.0}


def test_rates_and_shares_by_hand(small):
    config = small(batch=8, accumulation=2)
    found = throughput.times(config, 4, [STEP, STEP | {"step": 30.0}])
    assert found["step_ms"] == 25
    assert found["images_per_s"] == pytest.approx(8 * 2 * 4 / 0.025)
    assert found["images_per_s_low"] < found["images_per_s"] < found["images_per_s_high"]
    assert found["loss_share"] == pytest.approx(3 / 25)
    assert found["median_ms"] == 25
    assert found["samples_ms"] == [20, 30]


def test_the_interval_is_students(small):
    """Of 10 steps: t = 2.262 at 9 degrees of freedom."""
    steps = [STEP | {"step": 20.0 + (-1) ** n} for n in range(10)]
    found = throughput.times(small(), 1, steps)
    half = 2.262 * (10 / 9) ** 0.5 / 10**0.5
    assert 8e3 / found["images_per_s_low"] == pytest.approx(20 + half, rel=1e-4)


def test_the_schedule_is_images_over_rate(small):
    config = small(epochs=300, schedule_images=1_281_167)
    found = throughput.schedule(config, 8, {"images_per_s": 1000.0, "joules_per_image": 2.0})
    assert found["schedule_hours"] == pytest.approx(300 * 1_281_167 / 1000 / 3600)
    assert found["schedule_device_hours"] == pytest.approx(8 * found["schedule_hours"])
    assert found["schedule_kwh"] == pytest.approx(300 * 1_281_167 * 2 / 3.6e6)
    assert throughput.schedule(small(schedule_images=0), 1, {"images_per_s": 1.0}) == {}


def test_multiply_adds_of_a_resnet_50_are_the_known_ones(small):
    """4.09 GMACs forward at 224 pixels (He et al., 2016: 3.8 without the stem's strides)."""
    config = small(
        encoder="resnet50", stem="imagenet", image_size=224, projector=(8192, 8192, 8192)
    )
    forward = 4.089e9 + 2048 * 8192 + 2 * 8192**2
    first = 64 * 3 * 49 * 112**2  # images need no gradient
    assert throughput.network_macs(config) == pytest.approx(2 * (3 * forward - first), rel=0.002)


def test_utilisation_is_of_all_devices(small):
    config = small()
    ceilings = Ceilings({"float32": 100.0}, [(1, 1.0)], 1.0)
    macs = throughput.network_macs(config)
    found = throughput.utilisation(config, {"images_per_s": 50.0}, 2, ceilings)
    assert found["mfu"] == pytest.approx(2 * macs * 50 / 1e9 / 200)
    assert "mfu" not in throughput.utilisation(config, {"images_per_s": 50.0}, 1, None)


def test_saved_bytes_are_what_the_backward_pass_needs():
    """Of a linear layer its input, of a ReLU its output; the weights are not counted."""
    network = nn.Sequential(nn.Linear(16, 32, bias=False), nn.ReLU())
    x = torch.randn(8, 16)
    with throughput.SavedBytes(network) as saved:
        network(x)
        network(x)
    assert saved.bytes == 8 * 16 * 4 + 2 * 8 * 32 * 4
    network(torch.randn(8, 16))
    assert saved.bytes == 8 * 16 * 4 + 2 * 8 * 32 * 4


def test_state_bytes_are_counted():
    network = nn.Linear(10, 10)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(2, 10)).sum().backward()
    optimizer.step()
    found = throughput.state_bytes(network, optimizer)
    assert found["parameter_bytes"] == found["gradient_bytes"] == 110 * 4
    assert found["optimizer_bytes"] == 2 * 110 * 4 + 2 * 4  # two moments and the step of each
