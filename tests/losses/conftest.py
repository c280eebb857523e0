import losses
import pytest
from oracles import ORACLES

IMPLEMENTATIONS = [
    (name, implementation)
    for name in sorted(ORACLES)
    for implementation in losses.spec(name).implementations
]


@pytest.fixture(scope="session", params=IMPLEMENTATIONS, ids="-".join)
def loss(request):
    """Every implementation of every loss, hyperparameters as published."""
    return losses.create(*request.param)
