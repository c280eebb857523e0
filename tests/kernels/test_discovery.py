"""Kernels register themselves: a new file is a new implementation."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
KERNEL = """
from lossbench.losses import cost_model, implementation, spec


@implementation("nt_xent", "fake")
def fake(hp, z_a, z_b):
    return spec("nt_xent").implementations["reference"](hp, z_a, z_b)


cost_model("nt_xent", "fake")(spec("nt_xent").cost_models["reference"])
"""


def test_a_new_kernel_file_is_found_by_the_harness(tmp_path):
    for package in ("losses", "kernels", "bench"):
        shutil.copytree(ROOT / package, tmp_path / package)
    shutil.copytree(ROOT / "lossbench", tmp_path / "lossbench", symlinks=True)
    (tmp_path / "kernels" / "fake.py").write_text(KERNEL)
    command = [sys.executable, "-m", "lossbench", "count", "--loss", "nt_xent", "--dim", "16"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "nt_xent fake" in result.stdout
