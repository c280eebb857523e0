"""Shares of a ceiling: nobody is shown more than all of it, and what was raised says so."""

import json
from pathlib import Path

import pytest
from made_up import case, lossreport, measured

from lossbench.reports.page import make_table
from lossbench.reports.records import load

RUNS = sorted(Path(__file__).parents[2].glob("reports/results/*/*.jsonl"))
SLOW = {"gemm_gflops": {"float32": 10.0}, "copy_gb_per_s": [[1000, 5.0]], "launch_us": 9.0}
FAST = {"gemm_gflops": {"float32": 90.0}, "copy_gb_per_s": [[1000, 4.0]], "launch_us": 3.0}


def of_today(key, share, raised=0.0):
    return case(key, "gram", batch=len(key)) | measured(
        1.0, fraction_of_ceiling=share, ceiling_raised=raised
    )


def of_before(key, share):
    """A record of a time when shares could be more than 1, and nothing was said of it."""
    return case(key, "gram", batch=len(key)) | measured(1.0, fraction_of_ceiling=share)


def test_older_records_are_read_as_those_of_today(write_run):
    old = [of_before("a", 0.5), of_before("bb", 1.0), of_before("ccc", 1.1)]
    new = [of_today("a", 0.5), of_today("bb", 1.0), of_today("ccc", 1.0, 0.1)]
    names = ["fraction_of_ceiling", "ceiling_raised"]
    before, now = (load([write_run(records)])[names].fillna(0) for records in (old, new))
    assert before.to_numpy() == pytest.approx(now.to_numpy())


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.stem)
def test_no_committed_record_reaches_more_than_all(run):
    records = load([run])
    for name in ("fraction_of_ceiling", "mfu"):
        if name in records:
            assert not (records[name].astype(float) > 1).any()


@pytest.mark.parametrize("make", [of_today, of_before])
@pytest.mark.parametrize("form", ["terminal", "json", "csv"])
def test_the_table_of_devices_says_that_ceilings_were_raised(write_run, make, form):
    raised = () if make is of_before else (0.1,)
    beaten = make("bb", 1.1 if make is of_before else 1.0, *raised)
    text = make_table("devices", [write_run([of_before("a", 0.9), beaten])], form)
    if form == "terminal":
        assert "95%" in text  # the median of 90% and 100%
        assert "One result beat the calibrated ceiling, by up to 10.0%" in text
    if form == "json":
        (section,) = json.loads(text)
        assert section["rows"][0]["reached"] == pytest.approx(0.95)
    assert "1.1" not in text.replace("torch 2.13.0", "")


def test_a_comparison_says_so_too(write_run):
    runs = [write_run([of_before("a", share)], f"{share}.jsonl") for share in (0.8, 1.15)]
    done = lossreport("compare", *runs)
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stdout
    assert "One result beat the calibrated ceiling, by up to 15.0%" in " ".join(done.stdout.split())
    assert "115%" not in done.stdout


def test_the_ceilings_of_a_run_are_the_best_of_its_calibrations(write_run):
    records = [of_today("a", 0.5), of_today("bb", 0.5) | {"calibration": FAST}]
    runs = [write_run(records, calibration=SLOW), write_run([of_today("ccc", 0.5)], "other.jsonl")]
    found = load(runs).set_index("key")["calibration"]
    best = {**FAST, "copy_gb_per_s": [[1000, 5.0]]}
    assert found["a"] == found["bb"] == best
    assert found["ccc"] is None
    assert "90" in make_table("devices", runs, "terminal").splitlines()[3].split()
