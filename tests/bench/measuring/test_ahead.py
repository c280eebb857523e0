"""Kernels compiled ahead are those that a case launches: it finds all of them in the cache."""

import importlib.util
import subprocess
import sys

import pytest

from lossbench.bench.cases.case import Case
from lossbench.bench.counting.recording import CAN_RECORD
from lossbench.bench.measuring import ahead

CODE = """
import sys
from unittest import mock
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction
from lossbench.bench.cases.case import Case
from lossbench.bench.measuring import ahead
from lossbench.kernels import configs

class Driver:
    def get_current_device(self):
        return 0
    def get_current_stream(self, device):
        return 0
    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

driver.set_active(Driver())
case = Case("smi", "triton", batch=300, dim=256, dtype="bfloat16", device="cuda",
            options={"strategy": "cublas"})
with mock.patch("torch.cuda.get_device_capability", return_value=(9, 0)):
    if sys.argv[1] == "ahead":
        print(ahead.compile_ahead([case, case]))
    else:
        run, found = JITFunction.run, set()
        def note(kernel, arguments, grid):
            found.add(run(kernel, grid=grid, warmup=True, **arguments).hash)
        ahead.follow_launches(case, note)
        print(len(found))
"""


@pytest.mark.skipif(not CAN_RECORD, reason="kernels are not launched here")
@pytest.mark.parametrize(
    ("pass_", "passes"), [("forward", ["forward", "step"]), ("step", ["step"])]
)
def test_the_errors_of_a_value_need_kernels_of_a_step(pass_, passes, monkeypatch):
    """They are those of value and gradient."""
    followed = []
    monkeypatch.setattr(ahead, "follow_launches", lambda case, note: followed.append(case.pass_))
    ways = [Case("smi", way, pass_=pass_, device="cuda") for way in ("triton", "gram")]
    assert ahead.compile_ahead(ways) == 0
    assert sorted(followed) == passes


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="there is no triton here")
def test_a_case_finds_what_was_compiled_ahead_in_the_cache(tmp_path):
    def go(how):
        environment = {"TRITON_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-P", "-c", CODE, how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return int(done.stdout), sorted(str(path) for path in tmp_path.rglob("*.cubin"))

    kernels, compiled = go("ahead")
    assert len(compiled) == kernels > 2
    assert go("then") == (kernels, compiled)
