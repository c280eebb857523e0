"""Counts: three ways that agree, and the published figures."""

import json
import resource

import pytest
import torch
from command_line import call_lossbench
from hypothesis import given, settings
from hypothesis import strategies as st

from lossbench import losses
from lossbench.bench.cases.case import Case
from lossbench.bench.counting.counting import count

EVERY_IMPLEMENTATION = [(n, i) for n in losses.names() for i in losses.spec(n).implementations]


@pytest.mark.parametrize(("loss", "implementation"), EVERY_IMPLEMENTATION)
@pytest.mark.parametrize("pass_", losses.PASSES)
@settings(max_examples=20, deadline=None)
@given(batch=st.integers(2, 300), dim=st.integers(1, 300))
def test_cost_model_fvcore_and_flop_counter_agree(loss, implementation, pass_, batch, dim):
    counted = count(Case(loss, implementation, batch=batch, dim=dim, pass_=pass_))
    assert counted["macs_flop_counter"] == counted["macs_cost_model"]
    assert counted["forward_macs_fvcore"] == counted["forward_macs_cost_model"]
    assert counted["counts_agree"]


@pytest.mark.parametrize("dependency", ["squared_correlation", "correlation"])
def test_ablation_costs_the_same(dependency):
    counted = count(Case("smi", batch=7, dim=5, hyperparameters={"dependency": dependency}))
    assert counted["counts_agree"]
    assert counted["macs"] == 9 * 7**2 * 5


def test_published_rows_to_the_last_unit():
    published = ["--implementation", "reference", "--pass", "forward"]
    result = call_lossbench("count", "--suite", "efficiency", *published, "--json")
    assert result.returncode == 0
    rows = {
        (row["loss"], row["distribution"]): row["gmacs"]
        for row in json.loads(result.stdout)
        if not row["variant"]
    }
    assert rows["barlow_twins", "gather"] == 137.438953472
    assert rows["vicreg", "gather"] == 274.877906944
    assert rows["nt_xent", "gather"] == 103.079215104
    assert rows["smi", "local"] == 12.884901888
    assert rows["smi", "gather"] == rows["nt_xent", "gather"]


def test_disagreement_is_said_and_names_what_fvcore_cannot_see(monkeypatch):
    def wrong(problem: losses.Problem) -> losses.Cost:
        return losses.Cost(1, 2, 3, 4)

    monkeypatch.setitem(losses.spec("smi").cost_models, "reference", wrong)
    counted = count(Case("smi", batch=4, dim=4))
    assert not counted["counts_agree"]
    assert "aten::" in counted["counts_note"]


def test_large_counts_allocate_nothing():
    count(Case("smi", batch=4, dim=4))  # imports
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for loss in losses.names():
        count(Case(loss, batch=65536, dim=8192))  # 16 GB of views
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 200 * 1024


@pytest.mark.parametrize("loss", losses.names())
def test_saved_bytes_are_what_autograd_keeps(loss):
    assert count(Case(loss, batch=8, dim=16, pass_="forward"))["saved_bytes"] == 0
    views = [torch.randn(8, 16, requires_grad=True) for _ in "ab"]
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses.create(loss)(*views)
    inputs = {view.untyped_storage().data_ptr() for view in views}
    real = sum(t.untyped_storage().nbytes() for p, t in kept.items() if p not in inputs)
    assert count(Case(loss, batch=8, dim=16))["saved_bytes"] == real > 2 * 4 * 8 * 8


def test_gathering_is_counted_for_each_device():
    # 7 other devices, 256 samples, 8192 features, 2 views, 4 bytes; again in the backward pass
    gathered = Case("vicreg", batch=256, dim=8192, world=8, distribution="gather")
    assert count(gathered)["communicated_bytes"] == 2 * 7 * 256 * 8192 * 2 * 4
    assert count(Case("vicreg", batch=256, dim=8192, world=8))["communicated_bytes"] == 0


def test_local_batches_add_up_over_devices():
    one, eight = (count(Case("smi", batch=16, dim=8, world=world)) for world in (1, 8))
    assert eight["macs"] == 8 * one["macs"]
    assert eight["off_diagonal_entries"] == 8 * one["off_diagonal_entries"] == 8 * 3 * 16 * 15
    assert eight["saved_bytes"] == one["saved_bytes"]
