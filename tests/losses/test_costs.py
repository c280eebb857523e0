"""Counts against the published table, against hand counts and against torch's own counter."""

import pytest
import torch
from embeddings import random_views
from torch.utils.flop_counter import FlopCounterMode

import losses

DIM, GLOBAL_BATCH, LOCAL_BATCH, DEVICES = 8192, 2048, 256, 8

EVERY_IMPLEMENTATION = [
    (name, implementation)
    for name in losses.names()
    for implementation in losses.spec(name).implementations
]


def reference(name, batch, dim, views=2):
    return losses.spec(name).cost("reference", batch, dim, views)


@pytest.mark.parametrize(
    ("name", "batch", "devices", "gmacs", "published"),
    [
        ("barlow_twins", GLOBAL_BATCH, 1, 137.438953472, 137.43),
        ("vicreg", GLOBAL_BATCH, 1, 274.877906944, 274.87),
        ("nt_xent", GLOBAL_BATCH, 1, 103.079215104, 103.07),
        ("smi", LOCAL_BATCH, DEVICES, 12.884901888, 12.88),
    ],
)
def test_published_table(name, batch, devices, gmacs, published):
    macs = devices * reference(name, batch, DIM).macs("forward")
    assert macs == round(gmacs * 1e9)
    # the paper cut its figures off after two decimals
    assert int(macs / 1e7) / 100 == published


def test_smi_costs_as_much_as_nt_xent_on_the_same_batch():
    smi, nt_xent = (reference(name, GLOBAL_BATCH, DIM) for name in ("smi", "nt_xent"))
    assert smi.forward_macs == nt_xent.forward_macs == 103_079_215_104


@pytest.mark.parametrize(
    ("name", "forward", "entries"),
    [
        ("barlow_twins", 6 * 10**2, 10 * 9),
        ("vicreg", 2 * 6 * 10**2, 2 * 10 * 9),
        ("nt_xent", 3 * 6**2 * 10, 12 * 10),
        ("smi", 3 * 6**2 * 10, 3 * 6 * 5),
    ],
)
def test_batch_6_dim_10(name, forward, entries):
    cost = reference(name, 6, 10)
    assert cost.forward_macs == forward
    assert cost.backward_macs == 2 * forward
    assert cost.off_diagonal_entries == entries


@pytest.mark.parametrize(
    ("views", "blocks"), [(2, 3), (3, 6), (4, 10)], ids=lambda count: str(count)
)
def test_smi_of_more_views(views, blocks):
    cost = reference("smi", 6, 10, views)
    assert cost.forward_macs == blocks * 6**2 * 10
    assert cost.backward_macs == 2 * blocks * 6**2 * 10
    assert cost.off_diagonal_entries == blocks * 6 * 5


@pytest.mark.parametrize(("name", "implementation"), EVERY_IMPLEMENTATION)
def test_passes(name, implementation):
    cost = losses.spec(name).cost(implementation, 6, 10)
    assert losses.PASSES == ("forward", "forward_grad", "step")
    assert cost.macs("forward") == cost.macs("forward_grad") == cost.forward_macs > 0
    assert cost.macs("step") == cost.forward_macs + cost.backward_macs
    assert all(cost.flops(each) == 2 * cost.macs(each) for each in losses.PASSES)


@pytest.mark.parametrize(("name", "implementation"), EVERY_IMPLEMENTATION)
def test_every_implementation_has_a_cost_model(name, implementation):
    cost = losses.spec(name).cost(implementation, 64, 32)
    assert isinstance(cost, losses.Cost)
    assert {type(count) for count in vars(cost).values()} == {int}


def test_no_cost_model_without_an_implementation():
    for name in losses.names():
        assert set(losses.spec(name).cost_models) <= set(losses.spec(name).implementations)


@pytest.mark.parametrize("name", losses.names())
@pytest.mark.parametrize(("batch", "dim"), [(6, 10), (16, 4)])
def test_against_torch_flop_counter(name, batch, dim):
    views = [view.requires_grad_() for view in random_views(batch, dim)]
    loss, cost = losses.create(name), reference(name, batch, dim)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        loss(*views)
    with FlopCounterMode(display=False) as step:
        loss(*views).backward()
    assert forward.get_total_flops() == cost.flops("forward")
    assert step.get_total_flops() == cost.flops("step")


@pytest.mark.parametrize("count", [3, 4])
def test_smi_of_more_views_against_torch_flop_counter(count):
    views = [view.requires_grad_() for view in random_views(6, 10, count=count)]
    with FlopCounterMode(display=False) as step:
        losses.create("smi")(*views).backward()
    assert step.get_total_flops() == reference("smi", 6, 10, count).flops("step")


@pytest.mark.parametrize(
    ("world", "views", "element_bytes", "received"),
    [
        # 256 x 8192 elements are 2,097,152; bf16 has 2 bytes, fp32 4
        (8, 2, 4, 117_440_512),  # 7 devices x 2 views x 8,388,608 bytes
        (8, 2, 2, 58_720_256),
        (2, 3, 4, 25_165_824),  # 1 device x 3 views x 8,388,608 bytes
        (1, 2, 4, 0),
    ],
)
def test_all_gather_bytes(world, views, element_bytes, received):
    for pass_, passes in (("forward", 1), ("forward_grad", 1), ("step", 2)):
        assert (
            losses.all_gather_bytes(
                losses.Exchange(LOCAL_BATCH, DIM, world, element_bytes, pass_, views)
            )
            == passes * received
        )


def test_official_barlow_twins_sums_statistics_and_c_over_devices():
    # 7/4 of the elements move in a ring of 8: 2 x 2 D of batch norm, and D^2 of C, 4 bytes each
    job = losses.Exchange(batch=256, dim=8192, world=8, element_bytes=4, pass_="step")
    moved = 7 / 4 * 4 * (2 * 2 * 8192 + 8192**2)
    assert losses.spec("barlow_twins").communicated_bytes(job) == moved
    assert losses.spec("smi").communicated_bytes(job) == 0
    for loss in ("vicreg", "nt_xent"):
        assert losses.spec(loss).communicated_bytes(job) == 2 * 7 * 256 * 8192 * 2 * 4
