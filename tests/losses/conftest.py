import pytest
import torch
from embeddings import eager
from oracles import ORACLES

from lossbench import losses

IMPLEMENTATIONS = [
    (name, implementation) for name in sorted(ORACLES) for implementation in eager(name)
]


@pytest.fixture(scope="session", params=IMPLEMENTATIONS, ids="-".join)
def loss(request):
    """Every eager implementation of every loss, hyperparameters as published."""
    return losses.create(*request.param)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """On batches this small, waiting for a second thread costs far more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
