"""Tables of devices, of predictions and of frontiers."""

import pytest
from made_up import case, measured

from lossbench.reports.page import make_table
from lossbench.reports.records import load
from lossbench.reports.tables import devices, frontier, predictions

CALIBRATION = {
    "gemm_gflops": {"float32": 100.0, "bfloat16": 400.0},
    "copy_gb_per_s": [[1000, 50.0], [1000000, 20.0]],
    "launch_us": 4.0,
}


def predicted(key, way, ms, told, **fields):
    said = {"predicted_ms": told, "predicted_peak_bytes": 1_050_000}
    return {**case(key, way), **measured(ms), **said, **fields}


def test_devices_are_rows_with_their_ceilings(write_run):
    records = [predicted("a", "gram", 1.0, 0.5, fraction_of_ceiling=0.4)]
    records.append(predicted("b", "reference", 2.0, 1.0, fraction_of_ceiling=0.2))
    here = write_run(records, calibration=CALIBRATION)
    gpu = {"environment": {"gpu": "Test GPU", "torch": "2.11.0"}, "environment_hash": "g"}
    there = write_run([{**case("c"), **measured(0.1)}], "gpu.jsonl", **gpu)
    frame = devices.build(load([here, there]))[0].frame.set_index("device")
    assert frame.loc["Test CPU, 2 threads", "records"] == 2
    assert frame.loc["Test CPU, 2 threads", "float32_gflops"] == 100.0
    assert frame.loc["Test CPU, 2 threads", "copy_gb_per_s"] == 20.0  # of main memory
    assert frame.loc["Test CPU, 2 threads", "reached"] == pytest.approx(0.3)
    assert frame.loc["Test GPU", "records"] == 1
    text = make_table("devices", [here, there], "terminal")
    assert max(map(len, text.splitlines())) <= 80


def test_ceilings_are_those_of_the_newest_run_in_whatever_order(write_run):
    runs = []
    for day, rate in ((20, 1.0), (22, 3.0), (21, 2.0)):
        ceilings = CALIBRATION | {"gemm_gflops": {"float32": rate}}
        when = {"created": f"2026-11-{day}T12:00:00Z", "calibration": ceilings}
        records = [predicted(f"{day}", "gram", 1.0, 0.5)]
        runs.append(write_run(records, f"{day}.jsonl", **when))
    for some in (runs, runs[::-1], runs[1:]):
        assert devices.build(load(some))[0].frame["float32_gflops"].tolist() == [3.0]


def test_predictions_are_compared_in_value_and_order(write_run):
    records = [
        predicted("a", "reference", 8.0, 4.0),
        predicted("b", "gram", 2.0, 1.0),
        predicted("c", "chunked", 4.0, 0.5),  # said to be the fastest: two of three pairs are right
        predicted("d", "auto", 2.0, 1.0),
        case("e", "compiled"),
    ]
    run = write_run(records)
    frame = predictions.build(load([run]))[0].frame.set_index("implementation")
    assert list(frame.index) == ["chunked", "gram", "reference", "all"]
    assert frame.loc["reference", "time"] == pytest.approx(0.5)
    assert frame.loc["all", "time"] == pytest.approx((0.5 * 0.5 * 0.125) ** (1 / 3))
    assert frame.loc["all", "peak"] == pytest.approx(0.05)
    assert frame.loc["all", "rank"] == pytest.approx(0.5)  # 1 - 6 (0 + 1 + 1) / (3 (9 - 1))
    assert frame.loc["all", "order"] == pytest.approx(2 / 3)


def test_times_that_hardly_differ_have_no_order(write_run):
    run = write_run([predicted("a", "reference", 2.0, 1.0), predicted("b", "gram", 2.1, 0.5)])
    assert predictions.build(load([run]))[0].frame["order"].isna().all()


def test_runs_without_predictions_say_so(write_run):
    with pytest.raises(ValueError, match="lossbench run"):
        make_table("predictions", [write_run([{**case("a"), **measured(1.0)}])], "terminal")


def test_frontier_brackets_the_largest_batch(write_run):
    trials = [
        (64, "ok"),
        (128, "ok"),
        (160, "oom"),
        (256, "oom"),
    ]
    limits = {"memory_limit_bytes": 10**9, "predicted_largest_batch": 150}
    records = []
    for batch, status in trials:
        fields = {**limits, "batch": batch, "loss_batch": batch}
        result = measured(1.0) if status == "ok" else {"status": status}
        records.append({**case(f"k{batch}"), **result, **fields})
    row = frontier.build(load([write_run(records)]))[0].frame.iloc[0]
    assert (row["predicted"], row["largest"], row["smallest"]) == (150, 128, 160)
    assert row["memory_gb"] == 1.0


def test_a_huge_memory_fits_80_columns(write_run):
    limits = {"memory_limit_bytes": 1e24, "predicted_largest_batch": 1e24}
    largest = {"batch": 2**31 - 1, "loss_batch": 2**31 - 1, "title": "Barlow Twins", **limits}
    run = write_run([{**case("a"), **measured(1.0), **largest}, {**case("b"), **largest}])
    text = make_table("frontier", [run], "terminal")
    assert "1.0e+24" in text
    assert max(map(len, text.splitlines())) <= 80


def test_no_trials_say_so(write_run):
    with pytest.raises(ValueError, match="--frontier"):
        make_table("frontier", [write_run([{**case("a"), **measured(1.0)}])], "terminal")
