"""Pages are tested with the tools of the tests of commands."""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from command_line import CEILINGS

from lossbench.bench.predicting import devices
from lossbench.bench.running import sweep


@pytest.fixture(autouse=True)
def calibrated(monkeypatch):
    """What takes seconds, and depends on the machine: here less, but more than a small budget."""

    def calibrate(device):
        time.sleep(0.2)
        return CEILINGS

    for module in (sweep, devices):
        monkeypatch.setattr(module, "calibrate", calibrate)
