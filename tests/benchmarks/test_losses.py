"""What ``pytest --benchmark`` runs: each pass of every loss, as every eager implementation has it.

``compiled`` and ``auto`` do the work of another implementation.
"""

import pytest
import torch

from lossbench.bench.cases.case import Case
from lossbench.bench.cases.suites import Grid

CASES = list(
    Grid(
        implementation=["reference", "gram", "chunked"],
        layouts=[(256, 1, "local")],
        dim=[1024],
        pass_=["step", "forward_grad", "forward"],
        device="cuda" if torch.cuda.is_available() else "cpu",
    ).cases()
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_cost(benchmark_case, case: Case):
    benchmark_case(case)
