"""Counts: three ways that agree, and the published figures."""

import json
import resource
import subprocess
import sys
from collections.abc import Collection

import pytest
import torch
from command_line import QUIET, assert_one_line_error, call_lossbench
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


WITHOUT = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {without!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Without())
sys.argv[0] = "lossbench"
from lossbench.bench.interface.cli import main
main()
"""
"""``lossbench`` where packages are not installed."""


def lossbench_without(
    packages: Collection[str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT.format(without=packages), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=QUIET)


@pytest.mark.parametrize("packages", [["fvcore"], ["iopath", "yacs", "termcolor"]], ids="-".join)
def test_two_counts_agree_where_fvcore_or_what_it_needs_is_not_installed(packages):
    case = "--loss", "smi", "--implementation", "gram", "--batch", "64,4096", "--dim", "32"
    result = lossbench_without(packages, "count", *case, "--json")
    assert result.returncode == 0, result.stderr
    expected = [count(Case("smi", "gram", batch=batch, dim=32)) for batch in (64, 4096)]
    for found, same in zip(json.loads(result.stdout), expected, strict=True):
        assert found["counts_agree"] is True
        assert found["forward_macs_fvcore"] is None
        assert found["counts_note"].split()[1:4] == ["is", "not", "installed:"]
        assert found["macs_flop_counter"] == same["macs_flop_counter"]


def test_a_case_is_measured_without_what_only_adds_to_it(tmp_path):
    out = tmp_path / "run.jsonl"
    case = "--loss", "smi", "--implementation", "gram", "--batch", "16", "--dim", "8"
    optional = ["fvcore", "pynvml", "sklearn", "matplotlib", "tabulate", "jinja2"]
    result = lossbench_without(optional, "run", *case, "--device", "cpu", "--out", str(out))
    assert result.returncode == 0, result.stderr
    record = json.loads(out.read_text().splitlines()[1])
    assert record["status"] == "ok"
    assert record["median_ms"] > 0


@pytest.mark.parametrize("package", ["rich", "scipy", "safetensors"])
def test_a_package_that_is_needed_is_named_before_anything_is_measured(package, tmp_path):
    out = tmp_path / "run.jsonl"
    case = "--loss", "smi", "--batch", "16", "--dim", "8", "--device", "cpu"
    result = lossbench_without([package], "run", *case, "--out", str(out))
    assert_one_line_error(result, f"{package} is not installed")
    assert not out.exists()


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
