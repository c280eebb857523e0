"""Data parallelism: on 2 and 4 processes, the value and gradients of one on the global batch."""

from functools import cache

import pytest
import torch
from distributed_worker import (
    SUBGROUP,
    Case,
    byte_cases,
    cases,
    global_views,
    inputs,
    model,
    refused_cases,
    start,
)
from embeddings import relative_error, value_and_gradients
from oracles import ORACLES

from lossbench import losses
from lossbench.losses.distributed import (
    DISTRIBUTIONS,
    communicated_bytes,
    distribute,
    distributions,
)

TOLERANCE = 1e-10
EXACT = [case for case in cases() if case.distribution != "local"]
LOCAL = [case for case in cases() if case.distribution == "local"]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Results of all cases on each rank, by the number of ranks; each job runs once."""
    return cache(lambda world: start(world, tmp_path_factory.mktemp("ranks")))


FOUR = pytest.param(4, marks=pytest.mark.long)


@pytest.fixture(scope="module", params=[2, FOUR], ids="{}_ranks".format)
def ranks(request, job):
    return job(request.param)


def of_each(ranks, kind, case):
    return [results[kind][str(case)] for results in ranks]


@pytest.fixture(scope="module")
def four_ranks(job):
    return job(4)


def oracle(case, *views):
    """The authors' formula; what ours are called there is what they are called here."""
    return ORACLES[case.loss](*views, **case.hyperparameters)


def assert_global(case, results):
    """The global loss on every rank, and W times the slice of its gradient."""
    world = len(results)
    value, gradients = value_and_gradients(
        lambda *views: oracle(case, *views), *global_views(case, world)
    )
    for result in results:
        assert relative_error(result["value"], value) <= TOLERANCE
    for index, gradient in enumerate(gradients):
        slices = torch.cat([result["gradients"][index] for result in results]) / world
        assert relative_error(slices, gradient) <= TOLERANCE


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_value_and_gradients_of_the_global_batch(ranks, case):
    assert_global(case, of_each(ranks, "exact", case))


@pytest.mark.long
@pytest.mark.parametrize("case", EXACT, ids=str)
def test_ranks_of_a_group(four_ranks, case):
    """The others take no part, and a rank's place is that in the group."""
    inside = [four_ranks[rank] for rank in SUBGROUP]
    assert_global(case, of_each(inside, "subgroup", case))


@pytest.mark.long
def test_rank_outside_a_group_is_told(four_ranks):
    outside = {
        rank: results["outside"] for rank, results in enumerate(four_ranks) if rank in (0, 2)
    }
    assert outside == {
        rank: f"process {rank} is not one of the ranks of the group" for rank in (0, 2)
    }


@pytest.mark.parametrize("case", LOCAL, ids=str)
def test_local_is_the_loss_of_the_own_batch(ranks, case):
    views = global_views(case, len(ranks))
    for rank, result in enumerate(of_each(ranks, "exact", case)):
        own = [view[rank * case.batch :][: case.batch] for view in views]
        value, gradients = value_and_gradients(lambda *z: oracle(case, *z), *own)
        assert relative_error(result["value"], value) <= TOLERANCE
        for found, gradient in zip(result["gradients"], gradients, strict=True):
            assert relative_error(found, gradient) <= TOLERANCE
        assert result["bytes"] == 0


@pytest.mark.parametrize("case", cases(), ids=str)
def test_ddp_averages_to_the_gradients_of_one_process(ranks, case):
    """Of the loss of the global batch, or of the mean of the ranks' losses."""
    network, world = model(case), len(ranks)
    embeddings = [network(view) for view in inputs(case, world)]
    batches = [embeddings]
    if case.distribution == "local":
        batches = list(zip(*(each.split(case.batch) for each in embeddings), strict=True))
    torch.stack([oracle(case, *batch) for batch in batches]).mean().backward()
    for found in of_each(ranks, "end_to_end", case):
        for gradient, parameter in zip(found, network.parameters(), strict=True):
            # a bias shifts all samples alike: where the loss is blind to that, nothing but rounding
            size = torch.linalg.vector_norm(network.weight.grad)
            error = torch.linalg.vector_norm(gradient - parameter.grad)
            assert error <= TOLERANCE * size


def exchange(case, world):
    size = case.dtype.itemsize
    return losses.Exchange(case.batch, case.dim, world, size, case.pass_, case.views)


@pytest.mark.parametrize("case", byte_cases(), ids=str)
def test_communicated_bytes(ranks, case):
    expected = communicated_bytes(case.loss, case.distribution, exchange(case, len(ranks)))
    assert of_each(ranks, "bytes", case) == [expected] * len(ranks)


@pytest.mark.parametrize(
    ("loss", "distribution"),
    [("vicreg", "gather"), ("nt_xent", "gather"), ("barlow_twins", "allreduce")],
)
def test_a_step_communicates_what_the_official_code_is_said_to(ranks, loss, distribution):
    """By ``LossSpec.communicated_bytes``."""
    case = Case(loss, distribution)
    expected = losses.spec(loss).communicated_bytes(exchange(case, len(ranks)))
    assert of_each(ranks, "bytes", case) == [expected] * len(ranks)


# 5 samples of 16 features on each of W ranks, 2 views, fp64; a ring moves (W - 1) x what a rank
# gathers, and 2 (W - 1) / W of what is summed
@pytest.mark.parametrize(
    ("loss", "distribution", "gathered", "summed"),
    [
        ("nt_xent", "gather", 2 * 2 * 5 * 16, 0),  # both views, and back
        ("smi", "gram", 2 * 5 * 16, 2),  # both views once; two terms
        ("spectral_contrastive", "gram", 2 * 5 * 16, 2),
        ("nt_xent", "gram", 2 * 5 * 16 + 2 * 10, 2),  # and two numbers for each of 10 rows
        ("barlow_twins", "allreduce", 0, 16**2 + 4 * 16),  # C, means, variances
        ("vicreg", "allreduce", 0, 2 * 16**2 + 2 * 16 + 1),  # covariances, means, distance
        # means, variances and their gradients; diagonal of C; norm
        ("barlow_twins", "gram", 2 * 5 * 16, 6 * 16 + 16 + 1),
        ("vicreg", "gram", 2 * 5 * 16, 4 * 16 + 2 + 1),  # means, variances; norms, distance
    ],
)
def test_communicated_bytes_by_hand(ranks, loss, distribution, gathered, summed):
    world = len(ranks)
    moved = 8 * (world - 1) * (gathered + 2 * summed / world)
    assert of_each(ranks, "bytes", Case(loss, distribution)) == [moved] * world


@pytest.mark.parametrize("distribution", ["gather", "gram"])
@pytest.mark.parametrize("name", refused_cases())
def test_views_that_do_not_fit_are_refused_on_every_rank(ranks, name, distribution):
    said = [results["refused"][name][distribution] for results in ranks]
    assert all(len(each.splitlines()) == 1 for each in said)
    if name in ("batches", "features", "dtypes", "counts"):
        assert len(set(said)) == 1
        first, second = {
            "batches": ("2 of 4 x 3", "2 of 5 x 3"),
            "features": ("2 of 4 x 3", "2 of 4 x 2"),
            "dtypes": ("2 of 4 x 3, torch.float64", "2 of 4 x 3, torch.float32"),
            "counts": ("2 of 4 x 3", "3 of 4 x 3"),
        }[name]
        assert f"rank 0: {first}" in said[0]
        assert f"rank 1: {second}" in said[0]
        return
    culprit, other, message = {
        "one_sample": (1, 0, "z_a holds 1 sample(s)"),
        "two_shapes_on_one_rank": (0, 1, "z_b has shape (3, 3)"),
        "no_views": (0, 1, "needs at least two views"),
    }[name]
    assert message in said[culprit]
    assert f"rank {culprit}: views that are refused" in said[other]


def test_names():
    assert DISTRIBUTIONS == ("local", "gather", "allreduce", "gram")
    for name in losses.names():
        assert {"local", "gather"} <= set(distributions(name)) <= set(DISTRIBUTIONS)
    summed = {name for name in losses.names() if "allreduce" in distributions(name)}
    assert summed >= {"barlow_twins", "vicreg"}
    assert "allreduce" not in distributions("nt_xent")


def test_unknown_distribution():
    with pytest.raises(ValueError, match=r"'gathr'; did you mean 'gather'\? known: allreduce, "):
        distribute(losses.create("smi"), "gathr")
    with pytest.raises(ValueError, match="unknown distribution 'x'"):
        communicated_bytes("smi", "x", exchange(Case("smi", "gather"), 2))


def test_distribution_that_a_loss_does_not_have():
    says = r"nt_xent has no distribution 'allreduce'.*have: barlow_twins, vicreg"
    with pytest.raises(ValueError, match=says):
        distribute(losses.create("nt_xent"), "allreduce")
    with pytest.raises(ValueError, match=says):
        communicated_bytes("nt_xent", "allreduce", exchange(Case("nt_xent", "gather"), 2))


def test_module_that_is_not_of_the_registry():
    with pytest.raises(ValueError, match=r"gram needs a loss of losses\.create, got Identity"):
        distribute(torch.nn.Identity(), "gram")


@pytest.mark.parametrize("distribution", ["gather", "gram"])
def test_one_process_is_told_to_use_torchrun(distribution):
    with pytest.raises(ValueError, match=r"torch\.distributed is not initialised.*torchrun"):
        distribute(losses.create("smi"), distribution)


def test_local_needs_no_other_process():
    loss = losses.create("smi")
    assert distribute(loss, "local") is loss
