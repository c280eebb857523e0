"""A run that a CPU makes in a moment."""

import pytest

from lossbench.bench.measuring.timing import one_thread
from lossbench.bench.pretraining.config import from_preset

SMALL = {"batch": 8, "projector": (32, 16), "image_size": 8, "epochs": 2}


@pytest.fixture(autouse=True, scope="module")
def alone():
    """On batches this small, waiting for a second thread costs far more than it brings."""
    with one_thread():
        yield


@pytest.fixture
def small():
    """Settings of a small run, some of them changed."""

    def make(**changes):
        settings = {"loss": "smi", "implementation": "reference", "data": "digits"}
        return from_preset("digits", **{**SMALL, **settings, **changes})

    return make
