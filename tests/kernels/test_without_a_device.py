"""Without Triton or a GPU all can be imported and counted, and running says what is missing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lossbench.kernels  # noqa: F401 - registers its implementations
from lossbench import losses

ROOT = Path(__file__).parents[2]
FUSED = [name for name in losses.names() if "triton" in losses.spec(name).fused]
WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "triton" else found(name, *rest)
import torch
from lossbench import kernels, losses
views = torch.randn(4, 8), torch.randn(4, 8)
for name in losses.names():
    losses.create(name)(*views)
    try:
        losses.create(name, "triton")(*views)
    except NotImplementedError as error:
        print(name, error)
"""


def test_every_loss_has_kernels():
    assert sorted(losses.names()) == sorted(FUSED)


def test_without_triton_everything_else_works():
    command = [sys.executable, "-c", WITHOUT_TRITON]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == sorted(FUSED)
    assert all("triton is not installed" in line for line in lines)


@pytest.mark.parametrize("name", FUSED)
def test_a_cpu_is_unsupported(name):
    views = torch.randn(2, 4, 8)
    with pytest.raises(NotImplementedError, match=r"NVIDIA GPU, not device cpu.*'gram'"):
        losses.create(name, "triton")(*views)


@pytest.mark.parametrize("name", losses.names())
def test_auto_weighs_what_runs_anywhere(name):
    said = losses.explain(name, batch=256, dim=1024)
    assert "triton" not in str(said)


@pytest.mark.parametrize("name", FUSED)
def test_work_is_that_of_the_minimal_schedule(name):
    """2 N^2 D forward and 4 backward of a stacked Gram; half of it for one block, or two."""
    problem = losses.Problem(batch=1024, dim=2048)
    cost = losses.spec(name).cost("triton", problem)
    times = {"smi": 2, "nt_xent": 2}.get(name, 1)
    assert cost.forward_macs == times * 1024**2 * 2048
    assert cost.backward_macs == 2 * cost.forward_macs


def test_recomputation_and_padding_are_told_apart():
    whole = losses.Problem(batch=1024, dim=2048)
    ragged = losses.Problem(batch=1000, dim=2000)
    smi, nt_xent = (losses.spec(name) for name in ("smi", "nt_xent"))
    assert smi.cost("triton", whole).recomputed_macs == 0
    assert nt_xent.cost("triton", whole).recomputed_macs >= 2 * 1024**2 * 2048
    # of whole tiles only half of each square of 256 x 256 on the diagonal is more than is needed
    assert smi.cost("triton", whole).padding_macs == (2 * 1024 // 256) * 256**2 // 2 * 2048
    assert smi.cost("triton", ragged).padding_macs > smi.cost("triton", whole).padding_macs
