"""The suite for GPUs: its cases, and what of it can be tried without one."""

import json

import pytest
import torch
from command_line import call_lossbench

from lossbench.bench.cases.case import Case
from lossbench.bench.cases.suites import CHECK, GPU_SHAPES, HEADLINE, LAST, REST, USE, suite
from lossbench.bench.measuring import energy, floor
from lossbench.kernels.plan import layout


@pytest.fixture(scope="module")
def cases():
    return [case for grid in suite("gpu") for case in grid.cases()]


def test_correctness_comes_first(cases):
    """Every loss that has kernels, in each dtype and by each strategy, on a ragged batch."""
    first = cases[:45]
    assert {case.implementation for case in first} == {"triton"}
    assert len({(c.loss, c.dtype, c.options["strategy"]) for c in first}) == 5 * 3 * 3
    assert all(case.batch % 16 and case.dim % 16 for case in first)


def test_some_are_checked_where_no_gradient_is_kept(cases):
    """Of a Gram over samples: one over features is small."""
    swept = [case for case in cases if case.stage == CHECK and case.batch > 4096]
    assert len({(case.loss, case.options["strategy"]) for case in swept}) == 5 * 3
    assert all(case.pass_ == "step" for case in swept)
    assert not any(layout((case.batch, case.dim)).keeps for case in swept)


def test_stages_follow_one_another_and_what_takes_minutes_to_compile_is_last(cases):
    stages = list(dict.fromkeys(case.stage for case in cases))
    assert stages == [CHECK, USE, HEADLINE, REST, LAST]
    assert [case.stage for case in cases] == sorted((c.stage for c in cases), key=stages.index)
    tuned = [case for case in cases if "max-autotune" in case.options.get("mode", "")]
    assert {case.stage for case in tuned} == {LAST}


def test_the_first_suites_are_the_first_stages(cases):
    first = [
        case
        for name in ("gpu-check", "gpu-headline")
        for grid in suite(name)
        for case in grid.cases()
    ]
    assert first == cases[: len(first)]
    assert {case.stage for case in first} == {CHECK, USE, HEADLINE}


def test_every_loss_is_called_as_its_users_do(cases):
    used = [case for case in cases if case.stage == USE]
    assert len({case.loss for case in used}) == len(used) == 5
    assert not any(case.options for case in used)


@pytest.mark.parametrize("shape", GPU_SHAPES)
@pytest.mark.parametrize("pass_", ["forward", "step"])
def test_every_shape_has_every_contender(cases, shape, pass_):
    ways = {
        (case.implementation, case.products, *case.options.values())
        for case in cases
        if (case.batch, case.dim) == shape and case.pass_ == pass_
    }
    assert ways == {
        ("triton", ""),
        *(("triton", "", strategy) for strategy in ("fused", "cublas", "split")),
        *(("reference", products) for products in ("ieee", "tf32", "bf16")),
        ("compiled", "bf16", "default"),
        ("compiled", "bf16", "max-autotune-no-cudagraphs"),
        ("gram", "tf32"),
        ("chunked", "tf32"),
    }


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="it would run the suite")
def test_without_a_gpu_kernels_are_unsupported_and_the_others_run(tmp_path):
    """The suite is timed in pairs, with errors, without being asked."""
    out = tmp_path / "gpu.jsonl"
    shape = ("--batch", "16", "--dim", "32", "--pass", "step", "--dtype", "float32")
    ways = ("--loss", "smi", "--implementation", "triton,reference")
    done = call_lossbench("run", "--suite", "gpu", *shape, *ways, "--out", str(out))
    assert done.returncode == 1
    records = [json.loads(line) for line in out.read_text().splitlines()[1:]]
    status = {(r["implementation"], r["products"]): r["status"] for r in records}
    assert status["triton", ""] == "unsupported"
    assert status["reference", "ieee"] == status["reference", "tf32"] == "ok"
    headline = [r for r in records if r["products"] in ("bf16", "tf32")]
    assert len({r["pair_group"] for r in headline if r["status"] == "ok"}) == 1
    right = [r for r in records if r["status"] == "ok"]
    assert all(r["accuracy"] == "measured" for r in right)
    assert [r for r in right if "pair_group" not in r] == [r for r in right if not r["products"]]


@pytest.mark.long
def test_being_wrong_is_the_point_of_a_lower_precision(tmp_path):
    """What it gets wrong is said of each kind of inputs, and it is timed all the same."""
    out = tmp_path / "bf16.jsonl"
    shape = ("--batch", "16", "--dim", "32", "--pass", "step", "--dtype", "bfloat16")
    ways = ("--loss", "smi", "--implementation", "reference")
    call_lossbench("run", "--suite", "gpu", *shape, *ways, "--device", "cpu", "--out", str(out))
    records = [json.loads(line) for line in out.read_text().splitlines()[1:]]
    lowered = next(r for r in records if r["products"] == "bf16")
    assert lowered["accuracy_collapsed_status"] == "invalid"


@pytest.mark.parametrize("pass_", ["forward", "step"])
def test_floor_is_the_time_of_the_least_products(pass_, monkeypatch):
    """With a clock that counts multiply-adds, whether or not the batch is cut."""
    monkeypatch.setattr(floor, "_milliseconds", lambda _, a, b: a.numel() * b.shape[1])
    case = Case("smi", batch=48, dim=10, pass_=pass_, dtype="bfloat16")
    least = 2 * 48**2 * 10 * (3 if pass_ == "step" else 1)
    assert floor.floor_ms(case) == least
    monkeypatch.setattr(floor, "LARGEST", 24)
    assert floor.floor_ms(case) == least


def test_floor_is_measured():
    assert floor.floor_ms(Case("smi", batch=16, dim=16)) > 0


def test_energy_is_unknown_without_a_counter():
    assert energy.millijoules(lambda: None, "cpu") is None


def test_energy_is_that_of_one_call(monkeypatch):
    """Of a counter that every call moves by 7 mJ."""
    counter = [100]

    def call():
        counter[0] += 7

    monkeypatch.setattr(energy, "energy_mj", lambda device: counter[0])
    monkeypatch.setattr(energy, "LEAST_S", 0.001)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert energy.millijoules(call, "cuda") == 7
