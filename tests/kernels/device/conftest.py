"""Tests that run kernels: on a GPU, or else in Triton's interpreter, in a process of its own.

``tests/kernels/test_interpreted.py`` starts that process. By hand::

    TRITON_INTERPRET=1 pytest tests/kernels/device
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "losses"))  # batches and tolerances

from lossbench.kernels.language import why_unsupported

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if why_unsupported(torch.device(DEVICE)):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def device():
    return DEVICE


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """On batches this small, waiting for a second thread costs far more than it brings."""
    torch.set_num_threads(1)
