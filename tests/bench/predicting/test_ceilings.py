"""The roofline: closed forms, what cannot be, and what a calibration must be."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossbench.bench.cases.case import DTYPES, Case
from lossbench.bench.counting.operations import Operation
from lossbench.bench.counting.trace import Trace, trace
from lossbench.bench.counting.work import Work, work
from lossbench.bench.predicting import calibrate as calibrating
from lossbench.bench.predicting.calibrate import COPIED, PASSES, calibrate
from lossbench.bench.predicting.ceilings import TERMS, Ceilings, of_ceiling
from lossbench.bench.predicting.predict import predict_times
from lossbench.bench.records.calibrations import SLACK
from lossbench.bench.records.runfile import RunFileError, read

CEILINGS = Ceilings({"float32": 100.0, "bfloat16": 400.0}, [(1000, 10.0), (100_000, 50.0)], 4.0)
operations = st.builds(
    Operation,
    macs=st.integers(0, 10**12),
    precision=st.sampled_from(["float32", "bfloat16"]),
    moved_bytes=st.integers(0, 10**10),
)


def times(*done):
    return predict_times(Work.of(Trace(list(done))), CEILINGS)


def test_terms_are_work_over_rate():
    product = Operation(10**9, "float32", 100_000)
    compute, memory, launch = CEILINGS.terms_ms(product)
    assert compute == pytest.approx(2e9 / 100e9 * 1e3)
    assert memory == pytest.approx(100_000 / 50e9 * 1e3)
    assert launch == pytest.approx(0.004)


def test_copies_of_a_size_in_between_are_interpolated_and_larger_ones_as_the_largest():
    between = Operation(0, "", 10_000)
    assert CEILINGS.terms_ms(between)[1] == pytest.approx(10_000 / 30e9 * 1e3)
    assert CEILINGS.terms_ms(Operation(0, "", 10**9))[1] == pytest.approx(1e9 / 50e9 * 1e3)


@given(st.lists(operations, min_size=1, max_size=5))
def test_an_operation_takes_the_longest_of_its_terms(done):
    found = times(*done)
    assert found["predicted_ms"] == pytest.approx(
        sum(max(CEILINGS.terms_ms(each)) for each in done)
    )
    terms = [found[f"predicted_{name}_ms"] for name in TERMS]
    assert max(terms) <= found["predicted_ms"] * (1 + 1e-9)
    assert found["predicted_ms"] <= sum(terms) * (1 + 1e-9)
    assert found["predicted_bound"] in TERMS


@given(operations, operations)
def test_times_add_up(one, other):
    both = times(one, other)["predicted_ms"]
    assert both == pytest.approx(times(one)["predicted_ms"] + times(other)["predicted_ms"])


@given(operations, st.floats(0.1, 100))
def test_a_device_that_is_faster_in_all_takes_as_much_less(done, factor):
    faster = Ceilings(
        {name: factor * rate for name, rate in CEILINGS.gemm_gflops.items()},
        [(size, factor * rate) for size, rate in CEILINGS.copy_gb_per_s],
        CEILINGS.launch_us / factor,
    )
    told = predict_times(Work.of(Trace([done])), faster)["predicted_ms"]
    assert told == pytest.approx(times(done)["predicted_ms"] / factor)


@pytest.mark.parametrize("way", ["reference", "gram", "chunked"])
@pytest.mark.parametrize("pass_", ["forward", "step"])
def test_the_floor_is_below_the_prediction(way, pass_):
    case = Case("smi", way, batch=100, dim=200, pass_=pass_)
    floor = CEILINGS.floor_ms(trace(case), case.cost.macs(pass_), 2 * 100 * 200 * 4)
    assert 0 < floor <= predict_times(work(case), CEILINGS)["predicted_ms"]


def test_the_floor_is_that_of_the_least_work():
    done = Trace([Operation(2 * 10**9, "float32", 10)])
    whole, half = (CEILINGS.floor_ms(done, macs, 0) for macs in (2 * 10**9, 10**9))
    assert whole == pytest.approx(4e9 / 100e9 * 1e3)
    assert half == pytest.approx(whole / 2)
    assert CEILINGS.floor_ms(done, 0, 10**9) == pytest.approx(1e9 / 50e9 * 1e3)


def test_a_precision_without_a_ceiling_is_named():
    with pytest.raises(ValueError, match=r"float64.*bfloat16, float32"):
        times(Operation(1, "float64", 1))


@pytest.mark.parametrize(
    ("median", "share", "raised"), [(10.0, 0.5, 0.0), (5.0, 1.0, 0.0), (4.0, 1.0, 0.25)]
)
def test_what_was_reached(median, share, raised):
    record = {"status": "ok", "median_ms": median, "ceiling_ms": 5.0}
    assert of_ceiling(record) == {"fraction_of_ceiling": share, "ceiling_raised": raised}


def test_a_time_below_the_floor_is_invalid_and_says_why():
    said = of_ceiling({"status": "ok", "median_ms": 5 / (1.01 + SLACK), "ceiling_ms": 5.0})
    assert said["status"] == "invalid"
    assert "faster than" in said["reason"]


def test_what_failed_or_was_not_calibrated_reached_nothing():
    assert of_ceiling({"status": "oom", "ceiling_ms": 1.0}) == {}
    assert of_ceiling({"status": "ok", "median_ms": 1.0}) == {}


def test_a_calibration_names_every_dtype_and_survives_json(monkeypatch):
    monkeypatch.setattr(calibrating, "PASSES", 1)
    found = calibrate("cpu")
    assert set(found.gemm_gflops) == set(DTYPES)
    rates = [*found.gemm_gflops.values(), *(rate for _, rate in found.copy_gb_per_s)]
    assert min(rates) > 0 < found.launch_us
    sizes = [size for size, _ in found.copy_gb_per_s]
    assert sizes == sorted(set(sizes))
    assert Ceilings.of(found.describe()) == found
    assert Ceilings.of(None) is None


def test_processes_of_a_job_meet_before_each_measurement(monkeypatch):
    monkeypatch.setattr(calibrating, "MEASURE_S", 0.0)
    monkeypatch.setattr(calibrating, "SIDES", {"cpu": (8, 16)})
    met = []
    found = calibrate("cpu", lambda: met.append(1))
    assert len(met) == PASSES * (len(DTYPES) + len(COPIED["cpu"]) + 1)
    assert set(found.gemm_gflops) == set(DTYPES)


@pytest.mark.parametrize(
    "damage",
    [
        {"launch_us": -1.0},
        {"launch_us": None},
        {"gemm_gflops": []},
        {"gemm_gflops": {"float32": "fast"}},
        {"copy_gb_per_s": []},
        {"copy_gb_per_s": [[2, 1.0], [1, 1.0]]},
        {"copy_gb_per_s": [[1, 0.0]]},
        {"copy_gb_per_s": [[1]]},
        {"link_us": 5.0},
        {"link_us": -5.0, "link_gb_per_s": {"all_gather": 1.0, "all_reduce": 1.0}},
        {"link_us": 5.0, "link_gb_per_s": {"all_gather": 1.0}},
        {"link_us": 5.0, "link_gb_per_s": {"all_gather": 1.0, "all_reduce": 0.0}},
    ],
    ids=str,
)
def test_a_damaged_calibration_is_refused_by_line(tmp_path, damage):
    import json

    header = {"schema": 1, "environment": {}, "environment_hash": "e", "code_hash": "c"}
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps({**header, "calibration": CEILINGS.describe()}) + "\n")
    assert read(path).header["calibration"]["launch_us"] == 4.0
    path.write_text(json.dumps({**header, "calibration": {**CEILINGS.describe(), **damage}}) + "\n")
    with pytest.raises(RunFileError, match=r"run\.jsonl:1: calibration"):
        read(path)


def test_slower_ceilings_never_predict_less():
    case = Case("vicreg", "gram", batch=60, dim=90)
    slow = replace(CEILINGS, launch_us=40.0)
    done = work(case)
    assert (
        predict_times(done, slow)["predicted_ms"] >= predict_times(done, CEILINGS)["predicted_ms"]
    )
