"""The tests in ``device`` run here in Triton's interpreter, in processes of their own.

The interpreter is switched on for a whole process, and would replace the compiler in this one.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

DEVICE = Path(__file__).parent / "device"
LONGEST = "test_against_fp64.py"
"""Takes about as long as all others."""


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.Popen(
        command,
        cwd=DEVICE.parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="there is no triton for this platform"
)
def test_kernels_in_the_interpreter():
    longest = str(DEVICE / LONGEST)
    running = [start(longest), start(str(DEVICE), f"--ignore={longest}")]
    said = [process.communicate()[0] for process in running]
    for process, output in zip(running, said, strict=True):
        assert process.returncode == 0, output[-20000:]
        assert " passed" in output
