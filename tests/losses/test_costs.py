"""Counts against the published table, against hand counts and against torch's own counter."""

import pytest
import torch
from embeddings import (
    eager,
    random_views,
    repeatable,
    small_blocks,
    with_implementation,
    workspace,
)
from hypothesis import given, strategies
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from lossbench import losses
from lossbench.bench.measuring.memory import peak_bytes

DIM, GLOBAL_BATCH, LOCAL_BATCH, DEVICES = 8192, 2048, 256, 8

EAGER = [(name, implementation) for name in losses.names() for implementation in eager(name)]
EVERY_COST_MODEL = [
    (name, implementation)
    for name in losses.names()
    for implementation in losses.spec(name).cost_models
]


def reference(name, batch, dim, views=2):
    return losses.spec(name).cost("reference", losses.Problem(batch, dim, views))


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


@pytest.mark.parametrize(("name", "implementation"), EVERY_COST_MODEL)
def test_passes(name, implementation):
    cost = losses.spec(name).cost(implementation, losses.Problem(6, 10))
    assert losses.PASSES == ("forward", "forward_grad", "step")
    assert cost.macs("forward") == cost.forward_macs > 0
    assert cost.macs("step") == cost.forward_macs + cost.backward_macs
    with_gradient = "step" if cost.gradient_in_forward else "forward"
    assert cost.macs("forward_grad") == cost.macs(with_gradient)
    assert all(cost.flops(each) == 2 * cost.macs(each) for each in losses.PASSES)


@pytest.mark.parametrize("name", losses.names())
def test_who_computes_the_gradient_in_the_forward_pass(name):
    """A sweep that holds one tile at a time; the logsumexp of NT-Xent needs a second sweep."""
    costs = {each: losses.spec(name).cost(each, losses.Problem(6, 10)) for each in eager(name)}
    early = {each for each, cost in costs.items() if cost.gradient_in_forward}
    assert early == (set() if name == "nt_xent" else costs.keys() & {"chunked"})


@pytest.mark.parametrize(("name", "implementation"), EVERY_COST_MODEL)
def test_every_implementation_has_a_cost_model(name, implementation):
    cost = losses.spec(name).cost(implementation, losses.Problem(64, 32))
    assert isinstance(cost, losses.Cost)
    counts = dict(vars(cost))
    assert type(counts.pop("gradient_in_forward")) is bool
    assert {type(count) for count in counts.values()} == {int}


@pytest.mark.parametrize("name", losses.names())
def test_auto_alone_has_no_cost_model(name):
    spec = losses.spec(name)
    assert set(spec.implementations) - set(spec.cost_models) == {"auto"}
    with pytest.raises(ValueError, match="unknown implementation"):
        spec.cost("auto", losses.Problem(6, 10))


@pytest.mark.parametrize("name", losses.names())
def test_compiled_counts_as_its_source(name):
    spec, problem = losses.spec(name), losses.Problem(6, 10)
    assert spec.cost("compiled", problem) == spec.cost("reference", problem)


def counted_flops(loss, views, pass_):
    """What torch counts while one of ``PASSES`` runs."""
    leaves = [view.clone().requires_grad_() for view in views]
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(pass_ != "forward"):
        value = loss(*leaves)
        if pass_ == "step":
            value.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("pass_", losses.PASSES)
@pytest.mark.parametrize(("name", "implementation"), EAGER)
@repeatable
@given(
    batch=strategies.integers(2, 70),
    dim=strategies.integers(1, 130),
    side=strategies.integers(1, 40),
    count=strategies.integers(2, 4),
)
def test_against_torch_flop_counter(name, implementation, pass_, batch, dim, side, count):
    side = max(side, max(batch, dim) // 12)  # up to 12 x 12 tiles, to be quick
    spec, count = losses.spec(name), count if losses.spec(name).many_views else 2
    options = {"workspace_bytes": workspace(name, side)} if implementation == "chunked" else {}
    views = [view.float() for view in random_views(batch, dim, count)]
    with small_blocks(side):
        cost = spec.cost(implementation, losses.Problem(batch, dim, count), **options)
        loss = losses.create(name, implementation, **options)
        assert counted_flops(loss, views, pass_) == cost.flops(pass_)


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        made = (each.numel() for each in tree_leaves(result) if isinstance(each, torch.Tensor))
        self.elements = max(self.elements, *made, 0)
        return result


def largest_tensor(name, implementation, batch, dim, **options):
    views = [view.float().requires_grad_() for view in random_views(batch, dim)]
    with LargestTensor() as largest:
        losses.create(name, implementation, **options)(*views).backward()
    return largest.elements


@pytest.mark.parametrize("name", with_implementation("chunked"))
@pytest.mark.parametrize(("batch", "dim"), [(300, 9), (9, 300)])
def test_chunked_makes_no_square_matrix(name, batch, dim):
    """Nothing above the stacked views, where N x N or D x D would be 17 times as large."""
    tiles = {"workspace_bytes": workspace(name, 16)}
    assert largest_tensor(name, "chunked", batch, dim, **tiles) <= 2 * batch * dim
    by_samples = name in ("nt_xent", "smi")
    squared = batch if by_samples else dim
    if squared == max(batch, dim):  # the promise means something: the reference breaks it
        assert largest_tensor(name, "reference", batch, dim) >= squared**2


@pytest.mark.parametrize(("name", "implementation"), EAGER)
@pytest.mark.parametrize(("batch", "dim"), [(64, 512), (512, 64), (256, 256), (96, 2048)])
def test_peak_elements(name, implementation, batch, dim):
    views = [view.float().requires_grad_() for view in random_views(batch, dim)]
    loss = losses.create(name, implementation)
    measured = peak_bytes(lambda: torch.autograd.grad(loss(*views), views), "cpu") / 4
    claimed = losses.spec(name).cost(implementation, losses.Problem(batch, dim)).peak_elements
    assert claimed == pytest.approx(measured, rel=1 / 3)


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
