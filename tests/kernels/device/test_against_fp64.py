"""What the kernels compute is what the fp64 reference computes."""

import pytest
import torch
from embeddings import random_views, repeatable
from hypothesis import given, settings, strategies
from judging import NARROW, assert_as_good_as_the_reference, fused_outcome, narrow_truth
from rounding import assert_close_to, permitted_errors
from tilings import FUSED, WIDE, small_tiles

from lossbench import losses
from lossbench.kernels.configs import STRATEGIES


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


@pytest.mark.parametrize(
    "strategy", [STRATEGIES[0], *(pytest.param(s, marks=pytest.mark.long) for s in STRATEGIES[1:])]
)
@pytest.mark.parametrize(("name", "hyperparameters"), FUSED)
@settings(repeatable, max_examples=4)
@given(batch=batches(), keeps=strategies.booleans())
def test_fp32(name, hyperparameters, strategy, batch, keeps, device):
    views = [view.float() for view in batch]
    truth, permitted = permitted_errors(losses.create(name, **hyperparameters), views)
    with small_tiles(keeps):
        found = fused_outcome(name, hyperparameters, views, device, strategy=strategy)
    assert_close_to(truth, permitted, found)


@pytest.mark.parametrize(("name", "hyperparameters"), FUSED)
def test_tiles_of_several_strips_each_way(name, hyperparameters, device):
    """Of samples some of which stand there twice, so that no mask can be left out unnoticed."""
    views = [torch.cat([view[:45], view[:5]]) for view in random_views(50, 33, noise=0.5, seed=0)]
    views = [view.float() for view in views]
    truth, permitted = permitted_errors(losses.create(name, **hyperparameters), views)
    for keeps in (True, False):
        with small_tiles(keeps, WIDE):
            found = fused_outcome(name, hyperparameters, views, device, strategy="fused")
        assert_close_to(truth, permitted, found)


@pytest.mark.long
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
