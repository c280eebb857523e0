"""Cases of several devices: a device's share counted alone, and measured by as many processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import HERE, call_lossbench

from lossbench import losses
from lossbench.bench.cases.case import Case
from lossbench.bench.counting.counting import count
from lossbench.bench.counting.trace import trace
from lossbench.reports.records import load
from lossbench.reports.tables import distributed

ROOT = Path(__file__).parents[3]
CASES = (
    *("--loss", "smi,barlow_twins", "--distribution", "local,gather,allreduce,gram"),
    *("--implementation", "auto", "--batch", "12", "--dim", "20", "--device", "cpu"),
)
WAYS = {
    *(("smi", way) for way in ("local", "gather", "gram")),
    *(("barlow_twins", way) for way in ("local", "gather", "allreduce", "gram")),
}


def torchrun(out, *options, module="lossbench", **environment):
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", module, "run", *CASES, "--out", str(out), *options),
    ]
    paths = os.pathsep.join([str(ROOT), str(HERE)])
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **environment}
    return subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True)


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "together.jsonl"
    done = torchrun(out, "--world", "2")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    return out


@pytest.fixture(scope="module")
def records(run_file):
    lines = map(json.loads, run_file.read_text().splitlines()[1:])
    return {(record["loss"], record["distribution"]): record for record in lines}


def test_every_way_is_measured_and_right(records):
    assert set(records) == WAYS
    for (_, distribution), record in records.items():
        assert record["status"] == "ok"
        assert record["processes"] == record["world"] == 2
        assert record["counts_agree"]
        assert record["value_error"] < 1e-5
        assert record["gradient_error"] < 1e-5
        assert record["median_ms"] > record["communication_ms"]
        assert (record["communication_ms"] > 0) == (distribution != "local")


def test_all_but_local_are_one_loss(records):
    for loss in ("smi", "barlow_twins"):
        values = {way: records[name, way]["value"] for name, way in WAYS if name == loss}
        local = values.pop("local")
        assert list(values.values()) == pytest.approx([values["gather"]] * len(values), rel=1e-5)
        assert local != pytest.approx(values["gather"], rel=1e-3)


# 12 own samples of 24, 20 features of 4 bytes; from one other process, and back for the gradient
@pytest.mark.parametrize(
    ("loss", "distribution", "macs", "sent"),
    [
        ("smi", "gram", 8 * 12 * 24 * 20, 2 * 12 * 20 * 4 + 2 * 4),
        ("barlow_twins", "allreduce", 3 * 12 * 20 * 20, (20**2 + 4 * 20) * 4),
        ("barlow_twins", "gram", 4 * 12 * 24 * 20, 2 * 12 * 20 * 4 + (7 * 20 + 1) * 4),
    ],
)
def test_a_share_by_hand(records, loss, distribution, macs, sent):
    record = records[loss, distribution]
    assert record["macs_cost_model"] == record["macs_flop_counter"] == macs
    assert record["macs"] == 2 * macs
    assert record["communicated_bytes"] == sent
    assert records[loss, "gather"]["communicated_bytes"] == 2 * (2 * 12 * 20 * 4)


def test_the_table_has_a_device_and_the_whole_job(run_file, records):
    (section,) = distributed.build(load([run_file]))
    rows = section.frame.set_index([section.frame["loss"].str.lower(), "distribution"])
    assert len(rows) == len(WAYS)
    for (loss, distribution), record in records.items():
        row = rows.loc[loss.replace("_", " "), distribution]
        assert row["device_gmacs"] == pytest.approx(record["macs_cost_model"] / 1e9)
        assert row["job_gmacs"] == pytest.approx(2 * record["macs_cost_model"] / 1e9)
        assert row["communication_ms"] == record["communication_ms"]


@pytest.mark.long
def test_the_same_command_measures_nothing_again(run_file):
    before = run_file.read_bytes()
    assert torchrun(run_file, "--world", "2").returncode == 0
    assert run_file.read_bytes() == before


def test_other_numbers_of_devices_are_refused(tmp_path):
    done = torchrun(tmp_path / "run.jsonl", "--world", "4")
    assert done.returncode != 0
    assert "2 processes measure --world 2, got 4" in done.stderr
    assert not (tmp_path / "run.jsonl").exists()


def test_one_process_counts_a_share_and_says_how_to_measure_it(tmp_path):
    out = tmp_path / "run.jsonl"
    options = ("--world", "4", "--distribution", "gram")
    done = call_lossbench("run", *CASES, *options, "--out", str(out))
    assert done.returncode == 1
    for record in map(json.loads, out.read_text().splitlines()[1:]):
        assert record["status"] == "unsupported"
        assert "torchrun --standalone --nproc-per-node 4 -m lossbench run" in record["reason"]
        assert record["macs"] == 4 * record["macs_flop_counter"] > 0


def test_gathered_views_grow_a_share_and_its_memory():
    small, large = (Case("smi", "auto", 64, 32, world=w, distribution="gram") for w in (2, 16))
    assert count(large)["macs_cost_model"] == 8 * count(small)["macs_cost_model"]
    rows = 64 * 64 * 4  # of one view against those of one device
    more = trace(large).peak_bytes - trace(small).peak_bytes
    assert more >= 14 * (rows + 2 * 64 * 32 * 4)  # of 14 further devices, and their views


@pytest.mark.parametrize(
    ("batch", "dim", "world"),
    [(512, 64, 8), (64, 2048, 8), (256, 512, 2), (256, 256, 16), (32, 512, 1)],
)
def test_the_cost_model_tells_to_a_third_what_a_share_holds(batch, dim, world):
    for loss in losses.names():
        for form in losses.distributions(loss):
            if form in losses.FORMS:
                case = Case(loss, "auto", batch, dim, world=world, distribution=form)
                held = trace(case).peak_bytes / 4
                assert held / 1.5 < case.cost.peak_elements < 1.5 * held, (loss, form)


def test_the_table_takes_counts_without_times(tmp_path):
    out = tmp_path / "run.jsonl"
    options = ("--world", "4", "--distribution", "gram,gather", "--budget", "1s")
    call_lossbench("run", *CASES, *options, "--out", str(out))
    (section,) = distributed.build(load([out]))
    assert len(section.frame) == 4
    assert "median_ms" not in section.columns


# a second process that is wrong, or that fails


@pytest.mark.long
def test_a_wrong_process_is_found(tmp_path):
    """Its value, or its gradient; of its own loss too."""
    for what in ("value", "gradient"):
        out = tmp_path / f"{what}.jsonl"
        done = torchrun(out, "--world", "2", module="wrong_process", WRONG=what)
        assert done.returncode != 0
        found = [json.loads(line) for line in out.read_text().splitlines()[1:]]
        assert len(found) == len(WAYS)
        assert {record["status"] for record in found} == {"invalid"}


@pytest.mark.long
def test_a_process_that_fails_is_named_and_the_other_cases_are_measured_next(tmp_path):
    out = tmp_path / "run.jsonl"
    first = torchrun(out, "--world", "2", module="wrong_process", WRONG="fails")
    assert first.returncode != 0
    assert "process 1: MemoryError: made up" in first.stderr
    (failed,) = [json.loads(line) for line in out.read_text().splitlines()[1:]]
    assert failed["status"] == "oom"
    assert torchrun(out, "--world", "2").returncode == 1  # that case is not tried again
    assert len(out.read_text().splitlines()) == 1 + len(WAYS)


@pytest.mark.long
def test_all_processes_calibrate_again_where_a_result_beats_the_ceilings(tmp_path):
    out = tmp_path / "run.jsonl"
    done = torchrun(out, "--world", "2", module="slow_calibration")
    assert done.returncode == 0, done.stderr
    header, first, *others = map(json.loads, out.read_text().splitlines())
    assert first["calibration"]["launch_us"] < header["calibration"]["launch_us"]
    assert len(others) == len(WAYS) - 1
    for record in (first, *others):
        assert record["status"] == "ok"
        assert 0 < record["fraction_of_ceiling"] <= 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--distribution", "gathr"), "did you mean 'gather'"),
        (("--loss", "nt_xent", "--distribution", "allreduce"), "distribution of nt_xent"),
    ],
)
def test_bad_input(options, said):
    done = call_lossbench("count", "--batch", "12", "--dim", "20", "--world", "2", *options)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_form_has_no_implementations():
    with pytest.raises(ValueError, match="gram takes the place of the implementation"):
        Case("smi", "chunked", world=2, distribution="gram")
