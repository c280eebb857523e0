"""Measuring: what a record says of an output, right or wrong."""

import pytest
import torch

from lossbench import losses
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.inputs import make_inputs
from lossbench.bench.measuring import accuracy, timing
from lossbench.bench.measuring import measure as measure_module
from lossbench.bench.measuring.measure import check, compare, measure, sample_again
from lossbench.bench.records.fields import RECORD, problem

FACTORS = {"float64": 1 + 1e-8, "float32": 1.002, "bfloat16": 1.002, "float16": 0.998}


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(timing, "TARGET_S", 0.0)


@pytest.mark.parametrize("loss", losses.names())
@pytest.mark.parametrize("dtype", FACTORS)
def test_a_right_output_is_ok_and_a_slightly_wrong_one_invalid(loss, dtype):
    case = Case(loss, batch=16, dim=32, dtype=dtype, pass_="forward")
    views = make_inputs(case)
    value = losses.create(loss)(*views)
    right = check(case, (value,))
    assert right["status"] == "ok"
    assert right["value"] == pytest.approx(right["value_fp64"], rel=1e-4)
    wrong = check(case, (value * FACTORS[dtype],))
    assert wrong["status"] == "invalid"
    assert wrong["reason"].startswith("the value is ")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_not_finite_is_invalid(place):
    case = Case("smi", batch=4, dim=8)
    output = [torch.tensor(1.0), torch.zeros(4, 8), torch.zeros(4, 8)]
    output[place] = output[place] * float("nan")
    fields = check(case, tuple(output))
    assert fields == {"status": "invalid", "reason": "the value or its gradient is not finite"}


def test_an_implementation_that_changes_the_maths_is_invalid(monkeypatch):
    def wrong(hp, z_a, z_b):
        return {"part": (z_a - z_b).square().sum()}

    spec = losses.spec("smi")
    monkeypatch.setitem(spec.implementations, "wrong", wrong)
    monkeypatch.setitem(spec.cost_models, "wrong", spec.cost_models["reference"])
    record = measure(Case("smi", "wrong", batch=8, dim=8))
    assert record["status"] == "invalid"
    assert (len(record["samples_ms"]), record["moments"]) == (1, 1)
    assert record["peak_bytes"] > 0


def test_digits_are_measured_like_any_input():
    record = measure(Case("vicreg", batch=12, dim=8, inputs="digits"))
    assert record["status"] == "ok"


@pytest.mark.parametrize("sample", [True, False])
def test_beside_each_sample_stands_what_share_of_a_core_it_had(sample):
    record = measure(Case("smi", batch=8, dim=8), sample=sample)
    assert len(record["cpu_shares"]) == len(record["samples_ms"])
    assert 0 <= record["disturbed"] <= len(record["samples_ms"])
    assert problem(record, RECORD) is None


def test_a_single_slow_call_has_its_share_too(monkeypatch):
    monkeypatch.setattr(measure_module, "SLOW_MS", 0.0)
    record = measure(Case("smi", batch=8, dim=8), sample=False)
    assert len(record["cpu_shares"]) == len(record["samples_ms"]) == 1
    assert record["disturbed"] in (0, 1)


def test_a_long_call_is_made_once_and_what_surrounds_it_is_not_timed(monkeypatch):
    """As a memory profiler does, which takes a second to start."""
    events = []

    class Told(measure_module.Watch):
        def __init__(self):
            events.append("watch")
            super().__init__()

        def stop(self):
            events.append("stop")
            return super().stop()

    def around(call, device):
        events.append("begin")
        result = call()
        events.append("end")
        return 1, result

    monkeypatch.setattr(measure_module, "Watch", Told)
    monkeypatch.setattr(measure_module, "peak_and_result", around)
    monkeypatch.setattr(measure_module, "SLOW_MS", 0.0)
    record = measure(Case("smi", batch=8, dim=8), sample=False)
    assert events == ["begin", "watch", "stop", "end"]
    assert record["samples_ms"] == [pytest.approx(record["call_ms"], abs=1e-5)]


def test_a_later_moment_has_as_many_samples_as_it_is_told():
    told = sample_again(Case("smi", batch=8, dim=8), 5)
    assert {len(told[name]) for name in ("samples_ms", "cpu_shares", "taken_shares")} == {5}


def test_what_a_contender_does_first_is_not_timed_at_a_later_moment(tmp_path, monkeypatch):
    """It sleeps at its first call, as code does that is compiled then."""
    source = """
import time, torch

class Slow(torch.nn.Module):
    first = True

    def forward(self, z_a, z_b):
        time.sleep(0.2 if self.first else 0.0)
        self.first = False
        return (z_a - z_b).square().sum()
"""
    (tmp_path / "slow_at_first.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    case = Case("vicreg", batch=8, dim=8, contender="slow_at_first:Slow")
    for _ in range(2):
        assert max(sample_again(case, 2)["samples_ms"]) < 200


def test_outputs_in_turn_are_checked_by_the_scales_that_are_given(monkeypatch):
    """Between visits no truth has to be computed. The last is a control, of which none is given."""
    truths = []
    find = accuracy._find_truth
    monkeypatch.setattr(accuracy, "_find_truth", lambda *of: truths.append(of[0]) or find(*of))
    monkeypatch.setattr(accuracy, "_truths", {})
    known = []

    def checked(*of):
        known.append(len(truths))
        return check(*of)

    monkeypatch.setattr(measure_module, "check", checked)
    one, other = (
        Case("smi", batch=8, dim=8),
        Case("smi", batch=8, dim=8, hyperparameters={"lambda_": 2.0}),
    )
    found = compare([one, other, one], [2, 4, 2], scales=[1.0, 2.0])
    assert [each["status"] for each in found["checks"]] == ["ok", "invalid"]
    assert known == [2, 2]


def test_cases_in_turn_have_one_share_beside_each_sample():
    cases = [Case("smi", batch=8, dim=8), Case("vicreg", batch=8, dim=8)]
    found = compare(cases, [4, 2])
    assert [len(samples) for samples in found["samples_ms"]] == [4, 2]
    assert [len(shares) for shares in found["cpu_shares"]] == [4, 2]
    assert [len(found[name]) for name in ("disturbed", "retaken")] == [2, 2]
