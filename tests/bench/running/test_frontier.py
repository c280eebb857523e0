"""The largest batch that fits: found, bracketed, resumed, near what was predicted."""

import json

import pytest
from command_line import call_lossbench
from hypothesis import given
from hypothesis import strategies as st

from lossbench.bench.cases.case import Case
from lossbench.bench.interface.parsing import parse_bytes
from lossbench.bench.records.runfile import read
from lossbench.bench.running.frontier import FIRST, LARGEST, RESOLUTION, _next, device_bytes, kinds


@given(st.integers(2, 10**6), st.integers(2, 10**6), st.booleans())
def test_any_limit_is_bracketed_in_few_trials(limit, guess, predicted):
    low, high, share = 0, LARGEST, RESOLUTION if predicted else 1.0
    batch, trials = guess if predicted else FIRST, 0
    while high - low > max(1, RESOLUTION * low):
        low, high = (batch, high) if batch <= limit else (low, batch)
        batch, share = _next(low, high, share)
        trials += 1
    assert low <= limit < high
    assert trials <= 60


def test_a_good_guess_takes_two_trials_or_three():
    for limit in (1000, 1015, 990):
        low, high, share, batch, trials = 0, LARGEST, RESOLUTION, 1000, 0
        while high - low > max(1, RESOLUTION * low):
            low, high = (batch, high) if batch <= limit else (low, batch)
            batch, share = _next(low, high, share)
            trials += 1
        assert trials <= 3


def test_kinds_leave_out_batches_and_auto():
    cases = [Case("smi", way, batch=n) for way in ("gram", "auto") for n in (8, 16)]
    assert [(case.implementation, case.batch) for case in kinds(cases)] == [("gram", FIRST)]
    with pytest.raises(ValueError, match="auto"):
        kinds([Case("smi", "auto")])


def test_a_device_that_is_larger_than_this_one_cannot_be_emulated():
    with pytest.raises(ValueError, match="cannot emulate 1e\\+06 GB"):
        device_bytes("cpu", 10**15)
    assert device_bytes("cpu", 10**6) == 10**6


@pytest.mark.parametrize(("text", "size"), [("24GB", 24 * 10**9), ("1.5 gb", 15 * 10**8)])
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["1MB", "0.0000001MB", "99.9MB"])
def test_a_device_too_small_for_anything(text):
    with pytest.raises(ValueError, match="100 MB or more"):
        parse_bytes(text)


@pytest.mark.parametrize("option", [("--paired",), ("--accuracy",), ("--budget", "1s")])
def test_what_a_frontier_does_not_do_is_refused(tmp_path, option):
    grid = ("--loss", "smi", "--implementation", "gram", "--out", str(tmp_path / "f.jsonl"))
    done = call_lossbench("run", "--frontier", *grid, *option)
    assert done.returncode == 2
    assert option[0] in done.stderr


@pytest.mark.parametrize("wrong", [("--memory", "9999999GB"), ("--world", "8")])
def test_a_refused_frontier_leaves_no_file(tmp_path, wrong):
    out = tmp_path / "f.jsonl"
    grid = ("--loss", "smi", "--implementation", "gram", "--out", str(out))
    assert call_lossbench("run", "--frontier", *grid, *wrong).returncode == 2
    assert not out.exists()


@pytest.mark.parametrize("text", ["24", "0GB", "-1GB", "GB", "24TB"])
def test_bad_sizes(text):
    with pytest.raises(ValueError, match="24GB or 500MB"):
        parse_bytes(text)


def test_memory_is_of_a_frontier():
    result = call_lossbench("run", "--loss", "smi", "--memory", "1GB")
    assert result.returncode == 2
    assert "--frontier" in result.stderr


@pytest.mark.long
def test_found_resumed_and_near_the_prediction(tmp_path):
    out = tmp_path / "run.jsonl"
    command = [
        "run", "--frontier", "--memory", "600MB", "--loss", "smi", "--dim", "64",
        "--implementation", "reference", "--out", str(out), "--json",
    ]  # fmt: skip
    result = call_lossbench(*command)
    assert result.returncode == 0, result.stderr
    (found,) = json.loads(result.stdout)
    assert found["largest"] < found["smallest"] <= found["largest"] * (1 + RESOLUTION) + 1
    # what the libraries take beside the loss is a larger part of so little memory
    assert found["largest"] == pytest.approx(found["predicted"], rel=0.2)
    run = read(out)
    assert {record["status"] for record in run.records} == {"ok", "oom"}
    assert run.header["environment"]["memory_limit_bytes"] == 600 * 10**6
    again = call_lossbench(*command)
    assert json.loads(again.stdout) == [found]
    assert read(out).complete_bytes == run.complete_bytes
