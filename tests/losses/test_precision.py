"""Products in a precision that is not the implementation's own: what it would cost."""

import pytest
import torch
from embeddings import random_views, value_and_gradients

from lossbench import losses


def test_bf16_products_are_those_of_autocast():
    """Forward and backward; outside, nothing is rounded."""
    views = [view.float() for view in random_views(16, 24, noise=1.0)]
    loss = losses.create("smi")
    exact, gradients = value_and_gradients(loss, *views)

    def autocast(*leaves):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = losses.spec("smi").implementations["reference"](loss.hyperparameters, *leaves)
            return torch.stack(list(terms.values())).sum()

    expected, others = value_and_gradients(autocast, *views)
    with losses.products("bf16"):
        found, rounded = value_and_gradients(loss, *views)
    assert torch.equal(found, expected)
    assert all(map(torch.equal, rounded, others))
    assert not torch.equal(rounded[0], gradients[0])
    assert torch.equal(loss(*views), exact)


def test_settings_are_put_back():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    with losses.products("tf32"):
        assert matmul.fp32_precision == "tf32"
        with losses.products("ieee"):
            assert matmul.fp32_precision in ("ieee", "none")
    assert matmul.fp32_precision == before


def test_unknown_precision():
    wanted = r"unknown precision of products 'fp8'.*bf16, ieee, tf32"
    with pytest.raises(ValueError, match=wanted), losses.products("fp8"):
        pass
