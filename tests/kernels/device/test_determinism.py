"""No program adds to what another one writes: two calls are equal to the bit."""

import pytest
import torch
from embeddings import random_views, value_and_gradients
from tilings import small_tiles

from lossbench import losses

FUSED = ["barlow_twins", "nt_xent", "smi", "spectral_contrastive", "vicreg"]
BATCHES = {
    "fused": {"shape": (27, 19), "keeps": False},
    "cublas": {"shape": (27, 19), "keeps": True},
    "split": {"shape": (13, 150), "keeps": True},
}
"""Ragged; several super-blocks, products of cuBLAS, or parts of the depth."""


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("strategy", BATCHES)
@pytest.mark.parametrize("name", FUSED)
def test_two_calls_are_equal(name, strategy, dtype, device):
    loss = losses.create(name, "triton", strategy=strategy)
    views = [view.to(device, dtype) for view in random_views(*BATCHES[strategy]["shape"])]
    with small_tiles(BATCHES[strategy]["keeps"]):
        first, second = (value_and_gradients(loss, *views) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
