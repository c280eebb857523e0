"""What ``pytest --benchmark`` runs: every implementation of every loss, each pass."""

import pytest
import torch

from bench.case import Case
from bench.suites import Grid

CASES = list(
    Grid(
        layouts=[(256, 1, "local")],
        dim=[1024],
        pass_=["step", "forward_grad", "forward"],
        device="cuda" if torch.cuda.is_available() else "cpu",
    ).cases()
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_cost(benchmark_case, case: Case):
    benchmark_case(case)
