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
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="there is no triton for this platform"
)


def assert_passed(*arguments: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command,
        cwd=DEVICE.parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-20000:]
    assert " passed" in done.stdout


@needs_triton
def test_kernels_in_the_interpreter():
    assert_passed(str(DEVICE), "-m", "not long")


@needs_triton
@pytest.mark.long
def test_all_dtypes_strategies_and_tilings_in_the_interpreter():
    assert_passed(str(DEVICE), "-m", "long")
