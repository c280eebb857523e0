"""Sweeps that are tested in this process do not calibrate for seconds."""

import pytest
from command_line import CEILINGS

from lossbench.bench.running import sweep


@pytest.fixture(autouse=True)
def calibrated(monkeypatch):
    """What a sweep measures first."""
    monkeypatch.setattr(sweep, "calibrate", lambda device: CEILINGS)
