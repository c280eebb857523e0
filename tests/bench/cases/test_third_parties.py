"""Fused kernels of others in the gpu suite: what they equal, and where they stand."""

import json
import sys

import pytest
import torch
from command_line import call_lossbench

from lossbench.bench.cases import third_parties
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.contenders import resolve
from lossbench.bench.cases.examining import examine
from lossbench.bench.cases.selection import select_cases
from lossbench.bench.cases.suites import GPU_SHAPES

TARGET = "lossbench.bench.cases.third_parties:siglip"


@pytest.fixture
def package(monkeypatch):
    """The package itself, by its own eager code; importing it asks for a GPU."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    siglip_kernel = pytest.importorskip("siglip_kernel")
    fused = siglip_kernel.fused_siglip_loss
    monkeypatch.setattr(
        siglip_kernel, "fused_siglip_loss", lambda *given: fused(*given, backend="reference")
    )
    yield siglip_kernel
    for name in [name for name in sys.modules if name.partition(".")[0] == "siglip_kernel"]:
        del sys.modules[name]


def test_our_eager_code_is_the_packages(package):
    views = [torch.randn(17, 12, dtype=torch.float64, requires_grad=True) for _ in "ab"]
    values = [of(*views) for of in (third_parties.siglip, third_parties.siglip_eager)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, views) for value in values))


def test_it_passes_for_itself_and_not_for_the_loss_it_is_timed_beside(package):
    case = Case("smi", "siglip-kernel", batch=16, dim=32, contender=TARGET)
    found = examine(case, resolve(TARGET))
    assert found["parity"] == "another loss: equals its own reference"
    assert found["scale"] == pytest.approx(1)


def test_there_is_one_at_each_shape_of_the_suite(package):
    cases = [case for case in select_cases(suite="gpu") if case.contender]
    assert {case.implementation for case in cases} == {"siglip-kernel"}
    shapes = {(case.batch, case.dim, case.pass_) for case in cases}
    assert len(cases) == len(shapes) == 2 * len(GPU_SHAPES)


def test_there_is_none_where_it_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "siglip_kernel", None)
    assert not any(case.contender for case in select_cases(suite="gpu"))


def test_there_is_none_beside_other_losses(package):
    assert third_parties.beside([Case("nt_xent", batch=16, dim=32)]) == []


@pytest.mark.long
def test_one_that_is_another_loss_is_timed_and_judged_by_its_own_reference(tmp_path):
    out = tmp_path / "run.jsonl"
    contender = "smi.other=lossbench.bench.cases.third_parties:siglip_eager"
    options = ("--loss", "smi", "--implementation", "gram", "--batch", "16", "--dim", "32")
    done = call_lossbench("run", *options, "--contender", contender, "--out", str(out))
    assert done.returncode == 1, "without a reference of its own it is not SMI"
    records = [json.loads(line) for line in out.read_text().splitlines()[1:]]
    assert "is not smi" in next(r for r in records if r["implementation"] == "other")["reason"]

    contender = "smi.other=by_hand:another"
    done = call_lossbench(
        "run", *options, "--contender", contender, "--accuracy", "--out", str(out)
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()[1:]]
    other = next(r for r in records if r["implementation"] == "other" and r["status"] == "ok")
    assert other["gradient_error"] < 1e-5
    assert other["parity"].startswith("another loss")
