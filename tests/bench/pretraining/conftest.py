"""A run that a CPU makes in a moment."""

import pytest

from bench.pretraining.config import from_preset

SMALL = {"batch": 8, "projector": (32, 16), "image_size": 8, "epochs": 2}


@pytest.fixture
def small():
    """Settings of a small run, some of them changed."""

    def make(**changes):
        settings = {"loss": "smi", "implementation": "reference", "data": "digits"}
        return from_preset("digits", **{**SMALL, **settings, **changes})

    return make


class Quiet:
    """Progress that is told to nobody."""

    def start(self, label, done, total):
        pass

    def step(self, done, loss):
        pass


@pytest.fixture
def quiet():
    return Quiet()
