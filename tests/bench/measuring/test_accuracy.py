"""Accuracy: a wrong value or gradient is found, a right one gets its error."""

from dataclasses import replace

import pytest
import torch

from lossbench import losses
from lossbench.bench.cases.calls import case_call, make_call
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.inputs import make_inputs
from lossbench.bench.measuring import accuracy, timing
from lossbench.bench.measuring.accuracy import KINDS, judge
from lossbench.bench.measuring.measure import measure

WRONG_BY = 1.5
ROUNDED = ["bfloat16", "float16"]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No truth is left of another test, and sampling is short."""
    monkeypatch.setattr(accuracy, "_truths", {})
    monkeypatch.setattr(timing, "TARGET_S", 0.0)


def make_case(loss="smi", **changes):
    return Case(loss, **{"batch": 16, "dim": 32, **changes})


def right_output(case):
    return make_call(losses.create(case.loss), make_inputs(case), "step")()


def register(monkeypatch, loss, change):
    """An implementation "wrong" whose terms are those of the reference, changed."""
    spec = losses.spec(loss)
    reference = spec.implementations["reference"]

    def wrong(hp, z_a, z_b):
        return {name: change(term) for name, term in reference(hp, z_a, z_b).items()}

    monkeypatch.setitem(spec.implementations, "wrong", wrong)
    monkeypatch.setitem(spec.cost_models, "wrong", spec.cost_models["reference"])


@pytest.mark.parametrize("loss", losses.names())
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_what_is_right_is_ok_on_all_kinds_of_inputs(loss, dtype):
    for kind in KINDS:
        case = make_case(loss, dtype=dtype, inputs=kind)
        found = judge(case, right_output(case))
        assert (found["status"], found["reason"]) == ("ok", "")


@pytest.mark.parametrize("loss", losses.names())
def test_a_wrong_value_is_invalid(monkeypatch, loss):
    register(monkeypatch, loss, lambda term: WRONG_BY * term)
    record = measure(make_case(loss, implementation="wrong", pass_="forward"))
    assert record["status"] == "invalid"
    assert record["reason"].startswith("the value is ")
    assert record["value_error"] == pytest.approx(WRONG_BY - 1, rel=1e-3)


@pytest.mark.parametrize("loss", losses.names())
def test_a_wrong_gradient_behind_a_right_value_is_invalid(monkeypatch, loss):
    register(monkeypatch, loss, lambda term: WRONG_BY * term + (1 - WRONG_BY) * term.detach())
    record = measure(make_case(loss, implementation="wrong"))
    assert record["status"] == "invalid"
    assert record["reason"] == "the gradient is off by 0.5 of its length against fp64"
    assert record["value_error"] < 1e-5
    assert record["gradient_error"] == pytest.approx(WRONG_BY - 1, rel=1e-3)
    forward = measure(make_case(loss, implementation="wrong", pass_="forward"))
    assert (forward["status"], forward["gradient_error"]) == ("ok", None)


@pytest.mark.parametrize("place", [1, 2])
def test_a_gradient_of_either_view_counts(place):
    case = make_case("vicreg")
    output = list(right_output(case))
    output[place] = torch.zeros_like(output[place])
    assert judge(case, tuple(output))["status"] == "invalid"


def test_the_error_of_a_gradient_that_is_one_per_cent_long_is_one_per_cent():
    case = make_case(dtype="float64")
    value, *gradients = right_output(case)
    found = judge(case, (value, *(1.01 * gradient for gradient in gradients)))
    assert found["gradient_error"] == pytest.approx(1e-2)
    assert found["status"] == "invalid"


@pytest.mark.parametrize("loss", losses.names())
def test_a_factor_of_convention_is_no_error(loss):
    case = make_case(loss)
    output = right_output(case)
    plain = judge(case, output)
    scaled = judge(case, tuple(0.025 * tensor for tensor in output), scale=0.025)
    assert scaled["status"] == "ok"
    assert scaled["value"] == pytest.approx(plain["value"])
    assert scaled["gradient_error"] == pytest.approx(plain["gradient_error"], abs=1e-6)
    assert judge(case, tuple(0.025 * tensor for tensor in output))["status"] == "invalid"


@pytest.mark.parametrize("loss", losses.names())
def test_the_reference_is_as_far_off_as_itself(loss):
    record = measure(make_case(loss), sample=False, errors=True)
    assert record["status"] == "ok"
    for name in ("", *(f"accuracy_{kind}_" for kind in KINDS)):
        assert record[f"{name}gradient_error_to_reference"] == pytest.approx(1.0)
        if record[f"{name}value_error"]:  # the value may happen to be exact
            assert record[f"{name}value_error_to_reference"] == pytest.approx(1.0)


def test_without_a_gradient_in_fp64_there_is_none_to_compare_with(monkeypatch):
    monkeypatch.setattr(accuracy, "AFFORDABLE_MACS", make_case().cost.macs("step") - 1)
    case = make_case()
    value, *gradients = right_output(case)
    found = judge(case, (value, *(2 * gradient for gradient in gradients)))
    assert found["status"] == "ok"  # nobody can tell
    for name in ("value_error_to_reference", "gradient_error", "gradient_error_to_reference"):
        assert found[name] is None
    assert found["value_error"] < 1e-5
    assert judge(case, (2 * value, *gradients))["status"] == "invalid"
    errors = accuracy.accuracy(case, pytest.fail)
    assert errors == {"accuracy": "too large for fp64"}


@pytest.mark.parametrize("dtype", ROUNDED)
@pytest.mark.parametrize("loss", losses.names())
def test_the_truth_is_of_the_rounded_inputs(loss, dtype):
    case = make_case(loss, dtype=dtype)
    found = judge(case, right_output(case))
    reference = losses.create(loss)
    rounded, exact = (
        reference(*(view.double() for view in make_inputs(make_case(loss, dtype=name)))).item()
        for name in (dtype, "float32")
    )
    assert found["value_fp64"] == pytest.approx(rounded, rel=1e-12)
    assert abs(rounded - exact) > 1e-7 * abs(exact)


def test_all_implementations_share_one_truth(monkeypatch):
    made = []
    find = accuracy._find_truth
    monkeypatch.setattr(
        accuracy, "_find_truth", lambda case, own: made.append(case) or find(case, own)
    )
    for implementation in ("reference", "gram", "chunked"):
        case = make_case(implementation=implementation)
        judge(case, right_output(case))
    assert [case.implementation for case in made] == ["reference"]


def test_an_output_that_is_wrong_on_one_kind_of_inputs_is_named():
    case = make_case("vicreg", dtype="float64")
    reference = losses.create("vicreg")

    def run(views):
        # of the kinds, only aligned views are apart by as much as 0.03 of what differs in them
        spread = views[0].std(dim=0).mean()
        factor = 2 if (views[0] - views[1]).std() < 0.1 * spread else 1
        return tuple(factor * tensor for tensor in make_call(reference, views, "step")())

    errors = accuracy.accuracy(case, run)
    assert errors["status"] == "invalid"
    assert errors["reason"].startswith("aligned inputs: the ")
    assert errors["accuracy_random_value_error"] < 1e-12
    assert errors["accuracy_aligned_value_error"] == pytest.approx(1.0)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_not_finite_is_invalid(place):
    case = make_case()
    output = list(right_output(case))
    output[place] = output[place] * float("inf")
    found = judge(case, tuple(output))
    assert found == {"status": "invalid", "reason": "the value or its gradient is not finite"}


@pytest.mark.parametrize("loss", losses.names())
def test_where_the_reference_does_not_fit_tiles_tell_the_same_truth(monkeypatch, loss):
    case = make_case(loss, dtype="bfloat16")
    output = right_output(case)
    by_reference = judge(case, output)
    accuracy._truths.clear()
    tiled = "chunked" in losses.spec(loss).implementations
    monkeypatch.setattr(accuracy, "_judge", lambda _: "chunked" if tiled else "reference")
    found = judge(case, output)
    assert found["judged_by"] == ("chunked" if tiled else "reference")
    assert by_reference["judged_by"] == "reference"
    for name in ("value_fp64", "gradient_error"):
        assert found[name] == pytest.approx(by_reference[name], rel=1e-9)
    wrong = judge(case, (output[0], *(1.1 * gradient for gradient in output[1:])))
    assert wrong["status"] == "invalid"


@pytest.mark.parametrize("loss", losses.names())
def test_where_the_reference_takes_seconds_the_least_work_tells_the_same_truth(monkeypatch, loss):
    case = make_case(loss, batch=8, dim=64)
    output = right_output(case)
    by_reference = judge(case, output)
    accuracy._truths.clear()
    monkeypatch.setattr(accuracy, "QUICK_MACS", 0)
    found = judge(case, output)
    known = {"reference", "gram", "chunked"} & {*losses.spec(loss).implementations}
    macs = {name: replace(case, implementation=name).cost.macs("forward") for name in known}
    assert macs[found["judged_by"]] == min(macs.values())
    for name in ("value_fp64", "gradient_error", "gradient_error_to_reference"):
        assert found[name] == pytest.approx(by_reference[name], rel=1e-6)
    assert judge(case, (1.1 * output[0], *output[1:]))["status"] == "invalid"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_output_of_the_reference_does_not_excuse_itself(monkeypatch, place):
    """It tells how far off the reference is, unless it is further off than that can be."""
    monkeypatch.setattr(accuracy, "QUICK_MACS", 0)
    case = make_case("vicreg", batch=8, dim=64)
    output = right_output(case)
    monkeypatch.setattr(accuracy, "case_call", pytest.fail)  # what is at hand is not computed again
    found = judge(case, output)
    assert (found["status"], found["gradient_error_to_reference"]) == ("ok", 1)
    accuracy._truths.clear()
    monkeypatch.setattr(accuracy, "case_call", case_call)
    wrong = [tensor * (1.1 if number == place else 1.0) for number, tensor in enumerate(output)]
    found = judge(case, tuple(wrong))
    assert (found["status"], found["judged_by"]) == ("invalid", "reference")


def test_a_judge_that_the_reference_does_not_agree_with_is_none(monkeypatch):
    """Or an error that an implementation makes in every dtype would be its own truth."""
    monkeypatch.setattr(accuracy, "QUICK_MACS", 0)
    spec, case = losses.spec("vicreg"), make_case("vicreg", batch=8, dim=64)
    name = accuracy._judge(case)
    assert name != "reference"
    right = spec.implementations[name]

    def wrong(*arguments, **options):
        return {term: 1.5 * x for term, x in right(*arguments, **options).items()}

    monkeypatch.setitem(spec.implementations, name, wrong)
    output = make_call(losses.create("vicreg", name), make_inputs(case), "step")()
    found = judge(replace(case, implementation=name), output)
    assert (found["status"], found["judged_by"]) == ("invalid", "reference")


def test_a_gpu_checks_what_it_multiplies_in_seconds(monkeypatch):
    """One of 30 TFLOP/s in fp64 the gradient at (2048, 8192), and not one of a hundredth."""
    case = make_case(batch=2048, dim=8192, device="cuda")
    monkeypatch.setattr(accuracy, "free_bytes", lambda device: 80e9)
    for tflops, checked in ((30, True), (0.2, False)):
        ms = 2 * accuracy.PRODUCT_SIDE**3 / tflops / 1e9
        monkeypatch.setattr(accuracy, "make_timer", lambda _, ms=ms: lambda call: (ms, ()))
        monkeypatch.setattr(torch, "randn", lambda *_, **__: None)
        accuracy._gpu_macs.cache_clear()
        assert accuracy._affordable(case) == checked
    accuracy._gpu_macs.cache_clear()


def test_a_gpu_that_does_not_hold_the_reference_is_judged_by_tiles(monkeypatch):
    case = make_case(batch=65536, dim=1024, device="cuda")
    for free, name in ((80e9, "chunked"), (2e12, "reference")):
        monkeypatch.setattr(accuracy, "free_bytes", lambda device, free=free: free)
        assert accuracy._judge(case) == name
