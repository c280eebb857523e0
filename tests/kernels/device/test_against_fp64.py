"""What the kernels compute is what the fp64 reference computes."""

import pytest
import torch
from embeddings import degenerate_batches, random_views, repeatable
from hypothesis import given, settings, strategies
from rounding import assert_close_to, before_cancellation, outcome, permitted_errors
from tilings import FUSED, small_tiles

import losses
from kernels.configs import STRATEGIES

NARROW = [torch.bfloat16, torch.float16]
TOLERANCE = {
    torch.bfloat16: {"value": 1e-3, "gradient": 1e-2},
    torch.float16: {"value": 1e-3, "gradient": 1e-2},
}
"""What rounding the operands of the products to 16 bits adds to the reference's own error."""
OPERAND = 2.0**-8
"""Half an ulp of bf16 over a value: the most that rounding an operand changes it by."""
SLACK = 8


def on(device, found):
    return {name: value.to(device) for name, value in found.items()}


def fused_outcome(name, hyperparameters, views, device, **options):
    loss = losses.create(name, "triton", **hyperparameters, **options)
    return on("cpu", outcome(loss, [view.to(device) for view in views]))


def errors(found, truth):
    assert found.keys() == truth.keys()
    return {each: torch.linalg.vector_norm(found[each] - truth[each]).item() for each in truth}


def lengths(truth):
    return {each: torch.linalg.vector_norm(value).item() for each, value in truth.items()}


def narrow_truth(name, hyperparameters, views):
    """Truth about the views, and how far off the reference is in their dtype."""
    reference = losses.create(name, **hyperparameters)
    truth = outcome(reference, [view.double() for view in views])
    return truth, errors(outcome(reference, views), truth)


def assert_as_good_as_the_reference(found, truth, own, dtype, noise=None):
    """error(kernels) <= error(reference in the same dtype) + tolerance."""
    for each, error in errors(found, truth).items():
        tolerance = TOLERANCE[dtype]["gradient" if each.startswith("gradient") else "value"]
        allowed = own[each] + tolerance * lengths(truth)[each] + (noise or {}).get(each, 0.0)
        if each not in ("value", "gradient of value"):  # a term may be small beside the others
            whole = "gradient of value" if each.startswith("gradient") else "value"
            allowed += tolerance * lengths(truth)[whole]
        assert error <= allowed, f"{each} is {error:.3g} off, {allowed:.3g} is permitted"


@strategies.composite
def batches(draw):
    """2 to 40 samples of up to 70 features, at times with a sample that stands there twice.

    Two features leave SMI's rho at +-1: its gradient is then rounding, multiplied by 1 / eps.
    """
    dims = strategies.integers(1, 70).filter(lambda dim: dim != 2)
    shape = draw(strategies.integers(2, 40)), draw(dims)
    noise = draw(strategies.sampled_from([0.05, 0.5, 2.0]))
    views = random_views(*shape, seed=draw(strategies.integers(0, 2**31)), noise=noise)
    if shape[0] > 2 and draw(strategies.booleans()):
        views = [torch.cat([view[:-1], view[:1]]) for view in views]
    return views


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("name", "hyperparameters"), FUSED)
@settings(repeatable, max_examples=4)
@given(batch=batches(), keeps=strategies.booleans())
def test_fp32(name, hyperparameters, strategy, batch, keeps, device):
    views = [view.float() for view in batch]
    truth, permitted = permitted_errors(losses.create(name, **hyperparameters), views)
    with small_tiles(keeps):
        found = fused_outcome(name, hyperparameters, views, device, strategy=strategy)
    assert_close_to(truth, permitted, found)


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize(("name", "hyperparameters"), FUSED)
def test_16_bits(name, hyperparameters, dtype, strategy, keeps, device):
    for batch, dim in ((37, 50), (50, 33)):
        # deviations off the kink of VICReg's hinge, where rounding decides
        views = [(1.5 * view).to(dtype) for view in random_views(batch, dim, noise=1.0, seed=dim)]
        truth, own = narrow_truth(name, hyperparameters, views)
        with small_tiles(keeps):
            found = fused_outcome(name, hyperparameters, views, device, strategy=strategy)
        assert_as_good_as_the_reference(found, truth, own, dtype)


@pytest.mark.parametrize("batch", degenerate_batches())
@pytest.mark.parametrize(("name", "hyperparameters"), FUSED)
def test_degenerate_batches_in_fp32(name, hyperparameters, batch, device):
    """Constant, zero and duplicate rows, collapse: finite here as there, and the same."""
    views = [view.float() for view in degenerate_batches()[batch]]
    truth, permitted = permitted_errors(losses.create(name, **hyperparameters), views)
    for keeps in (True, False):
        with small_tiles(keeps):
            assert_close_to(truth, permitted, fused_outcome(name, hyperparameters, views, device))


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
