"""Sweeps that are tested in this process do not calibrate for seconds, on a quiet machine."""

import pytest
from command_line import CEILINGS

from lossbench.bench.measuring import spin
from lossbench.bench.measuring.spin import Spin
from lossbench.bench.running import sweep


@pytest.fixture(autouse=True)
def calibrated(monkeypatch):
    """What a sweep measures first."""
    monkeypatch.setattr(sweep, "calibrate", lambda device: CEILINGS)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """What it tests the machine for."""
    monkeypatch.setattr(spin, "spin", lambda: Spin(slowdown=1.0, waited=0.0))
