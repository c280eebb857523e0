"""Constant, zero, duplicate and nearly equal rows: finite, and as near to fp64 as they can be."""

import pytest
import torch
from embeddings import degenerate_batches
from judging import (
    NARROW,
    OPERAND,
    SLACK,
    assert_as_good_as_the_reference,
    errors,
    fused_outcome,
    lengths,
    narrow_truth,
)
from rounding import assert_close_to, before_cancellation, outcome, permitted_errors
from tilings import FUSED, small_tiles

from lossbench import losses


@pytest.mark.long
@pytest.mark.parametrize("batch", degenerate_batches())
@pytest.mark.parametrize(("name", "hyperparameters"), FUSED)
def test_degenerate_batches_in_fp32(name, hyperparameters, batch, device):
    """Constant, zero and duplicate rows, collapse: finite here as there, and the same."""
    views = [view.float() for view in degenerate_batches()[batch]]
    truth, permitted = permitted_errors(losses.create(name, **hyperparameters), views)
    for keeps in (True, False):
        with small_tiles(keeps):
            assert_close_to(truth, permitted, fused_outcome(name, hyperparameters, views, device))


@pytest.mark.long
@pytest.mark.parametrize("batch", degenerate_batches(large=30.0))
@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize(("name", "hyperparameters"), FUSED)
def test_degenerate_batches_in_16_bits(name, hyperparameters, dtype, batch, device):
    """Finite, and as near as operands that are off by an ulp of bf16 let any computation be."""
    views = [view.to(dtype) for view in degenerate_batches(large=30.0)[batch]]
    truth, own = narrow_truth(name, hyperparameters, views)
    reference = losses.create(name, **hyperparameters)
    with before_cancellation(torch.float32):
        large = lengths(outcome(reference, views))
    # the norm of a feature product is of the fourth degree in what is rounded
    noise = {each: SLACK * own[each] + 4 * OPERAND * large[each] for each in truth}
    for seed in range(4):
        moved = errors(outcome(reference, moved_by_an_ulp(name, views, seed)), truth)
        noise = {each: max(noise[each], SLACK * moved[each]) for each in truth}
    with small_tiles():
        found = fused_outcome(name, hyperparameters, views, device)
    assert all(value.isfinite().all() for value in found.values())
    assert_as_good_as_the_reference(found, truth, own, dtype, noise)


def moved_by_an_ulp(name, views, seed):
    """What is normalised moved by up to an ulp of bf16: each entry by its own, or rows as one.

    Rows of equal entries are rounded as one. SMI centres them first, the losses of features each
    feature.
    """
    generator = torch.Generator().manual_seed(seed)
    centred_over = {"smi": 1, "barlow_twins": 0, "vicreg": 0}

    def move(view):
        wide = view.double()
        shape = wide.shape if seed % 2 else (len(wide), 1)
        random = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
        if name in centred_over:
            centred = wide - wide.mean(dim=centred_over[name], keepdim=True)
        else:
            centred = wide
        return wide + 2 * OPERAND * random * centred

    return [move(view) for view in views]
