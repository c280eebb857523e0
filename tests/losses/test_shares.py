"""What one of several ranks computes: counted on ranks that are only imagined."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lossbench import losses

SHARES = [
    (loss, form, world)
    for loss in losses.names()
    for form in losses.distributions(loss)
    if form in losses.FORMS
    for world in (1, 2, 8)
]


def counted_macs(loss, form, world, pass_, views=2, batch=12, dim=20):
    own = [
        torch.empty(batch, dim, device="meta", requires_grad=pass_ != "forward")
        for _ in range(views)
    ]
    share = losses.distribute(losses.create(loss), form, losses.Imagined(world))
    with FlopCounterMode(display=False) as counter:
        value = share.forward(*own)
        if pass_ == "step":
            torch.autograd.grad(value, own)
    return counter.get_total_flops() // 2


def problem(views=2, batch=12, dim=20):
    return losses.Problem(batch, dim, views)


@pytest.mark.parametrize("pass_", losses.PASSES)
@pytest.mark.parametrize(("loss", "form", "world"), SHARES)
def test_a_share_costs_what_is_counted(loss, form, world, pass_):
    cost = losses.share_cost(loss, form, problem(), world)
    assert cost.macs(pass_) == counted_macs(loss, form, world, pass_)


def test_shares_of_three_views():
    cost = losses.share_cost("smi", "gram", problem(views=3), 4)
    for pass_ in losses.PASSES:
        assert cost.macs(pass_) == counted_macs("smi", "gram", 4, pass_, views=3)


# N = 12 own samples of 48, D = 20; a row block is 12 x 48 x 20, a share of C 12 x 20 x 20
@pytest.mark.parametrize(
    ("loss", "form", "forward", "step"),
    [
        ("smi", "gram", 3 * 11520, 8 * 11520),
        ("nt_xent", "gram", 4 * 11520, 8 * 11520),
        ("spectral_contrastive", "gram", 11520, 4 * 11520),
        ("barlow_twins", "gram", 2 * 11520, 4 * 11520),
        ("vicreg", "gram", 2 * 11520, 4 * 11520),
        ("barlow_twins", "allreduce", 4800, 3 * 4800),
        ("vicreg", "allreduce", 2 * 4800, 6 * 4800),
    ],
)
def test_shares_by_hand(loss, form, forward, step):
    cost = losses.share_cost(loss, form, problem(), 4)
    assert (cost.macs("forward"), cost.macs("step")) == (forward, step)


@pytest.mark.parametrize("loss", losses.names())
def test_shares_of_a_gram_are_its_whole(loss):
    """All pairs that the global batch has are some rank's."""
    share, whole = (
        losses.share_cost(loss, "gram", problem(batch=batch), world).off_diagonal_entries
        for batch, world in ((12, 4), (48, 1))
    )
    assert 4 * share == whole


def test_share_of_a_loss_without_the_form():
    with pytest.raises(ValueError, match="nt_xent has no distribution 'allreduce'"):
        losses.share_cost("nt_xent", "allreduce", problem(), 2)
    with pytest.raises(ValueError, match="unknown form 'gather'"):
        losses.share_cost("smi", "gather", problem(), 2)


@pytest.mark.parametrize("pass_", losses.PASSES)
@pytest.mark.parametrize(("loss", "form", "world"), SHARES)
def test_exchanges_add_up_to_the_bytes_of_the_cost_model(loss, form, world, pass_):
    imagined = losses.Imagined(world)
    own = [torch.empty(12, 20, device="meta", requires_grad=pass_ != "forward") for _ in "ab"]
    value = losses.distribute(losses.create(loss), form, imagined)(*own)
    if pass_ == "step":
        torch.autograd.grad(value, own)
    expected = losses.communicated_bytes(loss, form, losses.Exchange(12, 20, world, 4, pass_))
    assert sum(moved for _, moved in imagined.exchanges) == pytest.approx(expected, abs=1)
