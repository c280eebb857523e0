"""The tests in ``device`` run here in Triton's interpreter, in a process of their own.

The interpreter is switched on for a whole process, and would replace the compiler in this one.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

DEVICE = Path(__file__).parent / "device"


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="there is no triton for this platform"
)
def test_kernels_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(DEVICE)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        command, cwd=DEVICE.parents[2], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
