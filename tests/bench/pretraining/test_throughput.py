"""What is said of a step: rates, shares, counts, bytes, and extrapolations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lossbench.bench.measuring.phases import PHASES
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.pretraining import throughput
from lossbench.bench.pretraining.config import from_preset

CONFIG = from_preset("digits", batch=8, loss="smi")
STEP = dict.fromkeys(PHASES, 1.0) | {"encoder_forward": 12.0, "step": 20.0}


def test_rates_and_shares_by_hand(small):
    config = small(batch=8, accumulation=2)
    found = throughput.times(config, 4, [STEP, STEP | {"step": 45.0}])
    assert found["step_ms"] == pytest.approx(30)  # the geometric mean
    assert found["images_per_s"] == pytest.approx(8 * 2 * 4 / 0.03)
    assert found["loss_share"] == pytest.approx(2 * 3 / 65)
    assert found["encoder_forward_ms"] == pytest.approx(30 * 2 * 12 / 65)
    assert found["median_ms"] == 32.5
    assert found["samples_ms"] == [20, 45]


def test_the_interval_is_yuens_of_logarithms(small):
    """Of 10 steps 6 are kept, and t = 2.571 at 5 degrees of freedom."""
    logs = [-0.9, -0.9, -0.1, -0.1, -0.1, 0.1, 0.1, 0.1, 0.9, 0.9]
    found = throughput.times(small(), 1, [STEP | {"step": 20 * math.exp(log)} for log in logs])
    half = 2.571 * (10 * 0.1**2 / (6 * 5)) ** 0.5
    assert found["step_ms"] == pytest.approx(20)
    assert found["images_per_s_low"] == pytest.approx(8 / 0.02 / math.exp(half), rel=1e-4)
    assert found["images_per_s_high"] == pytest.approx(8 / 0.02 * math.exp(half), rel=1e-4)


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=12))
def test_an_interval_holds_the_rate_and_is_finite_or_is_not_there(whole):
    found = throughput.times(CONFIG, 1, [STEP | {"step": ms} for ms in whole])
    low, high = found["images_per_s_low"], found["images_per_s_high"]
    assert min(whole) <= found["step_ms"] * (1 + 1e-9) <= max(whole) * (1 + 1e-8)
    if len(whole) < 6:
        assert low is high is None
    else:
        assert 0 < low <= found["images_per_s"] <= high < math.inf


@pytest.mark.parametrize("place", [0, 11, 21])
@pytest.mark.parametrize("phase", PHASES)
def test_a_stall_in_one_step_changes_no_figure(phase, place):
    """2 s in one of the 22 steps that are timed of 25; steps vary by 5% from one to the next."""
    varied = np.exp(np.random.default_rng(0).normal(0, 0.05, 22))
    steps = [{name: ms * factor for name, ms in STEP.items()} for factor in varied]
    quiet = throughput.times(CONFIG, 1, steps)
    for name in (phase, "step"):
        steps[place][name] += 2000
    stalled = throughput.times(CONFIG, 1, steps)
    figures = ("step_ms", "images_per_s", "loss_share", *(f"{name}_ms" for name in PHASES))
    for name in (*figures, "images_per_s_low", "images_per_s_high"):
        assert stalled[name] == pytest.approx(quiet[name], rel=0.03)


@given(st.lists(st.tuples(*[st.floats(1e-3, 1e3)] * len(PHASES)), min_size=1, max_size=12))
def test_phases_that_make_up_their_steps_make_up_the_figure(measured):
    steps = [dict(zip(PHASES, phases, strict=True), step=sum(phases)) for phases in measured]
    found = throughput.times(CONFIG, 1, steps)
    parts = [found[f"{name}_ms"] for name in PHASES]
    assert sum(parts) == pytest.approx(found["step_ms"])


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
