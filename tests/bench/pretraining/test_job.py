"""Several processes: one job under torchrun, and what becomes of it when one is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lossbench.bench.measuring.phases import PHASES
from lossbench.bench.predicting.links import Link

ROOT = Path(__file__).parents[3]


def torchrun(folder, *options, steps=6, module="lossbench"):
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", module, "pretrain", "--loss", "smi", "--steps",
        str(steps), "--batch", "8", "--set", "projector=32,16", "--device", "cpu", "--out",
        str(folder / "run.jsonl"), "--checkpoint", str(folder), "--every", "1", *options,
    ]  # fmt: skip


def environment():
    return {name: value for name, value in os.environ.items() if name != "CI"} | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests/bench")]),
    }


@pytest.mark.long
def test_two_processes_make_one_record_and_exact_forms_follow_the_same_curve(tmp_path):
    curves = {}
    for distribution in ("local", "gather", "gram"):
        folder = tmp_path / distribution
        command = torchrun(folder, "--set", f"distribution={distribution}")
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        header, record = map(json.loads, (folder / "run.jsonl").read_text().splitlines())
        assert header["environment"]["processes"] == 2
        assert Link.of(header["calibration"]) is not None
        assert (record["world"], record["distribution"]) == (2, distribution)
        sent = [record[f"predicted_{name}_ms"] for name in ("communication", "gradient_reduction")]
        assert sent[1] > 0
        assert (sent[0] > 0) == (distribution != "local")
        assert record["images_per_s"] == pytest.approx(2 * 8 / record["step_ms"] * 1e3)
        parts = sum(record[f"{name}_ms"] for name in PHASES)
        assert parts == pytest.approx(record["step_ms"], rel=0.03)
        assert record["gradient_reduction_ms"] > 0
        # a ring of two: 8 x 16 values of two views from the other, and back; two sums of a term
        bytes_ = {"local": 0, "gather": 2 * 8 * 16 * 2 * 4, "gram": 8 * 16 * 2 * 4 + 2 * 4}
        assert record["communicated_bytes"] == bytes_[distribution]
        assert record["gradient_communicated_bytes"] == record["parameter_bytes"]
        assert (record["communication_ms"] > 0) == (distribution != "local")
        curves[distribution] = record["curve"]
    assert curves["gram"] == pytest.approx(curves["gather"], rel=1e-3)
    assert curves["local"] != pytest.approx(curves["gather"], rel=1e-2)


@pytest.mark.long
def test_all_processes_calibrate_again_where_the_network_beats_the_ceilings(tmp_path):
    command = torchrun(tmp_path, "--loss", "smi,vicreg", steps=4, module="slow_calibration")
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, first, second = map(json.loads, (tmp_path / "run.jsonl").read_text().splitlines())
    assert first["calibration"]["launch_us"] < header["calibration"]["launch_us"]
    for record in (first, second):
        assert 0 < record["mfu"] <= 1


@pytest.mark.long
def test_a_killed_process_ends_the_job_and_the_checkpoint_goes_on(tmp_path):
    """kill -9 of one of two: an error within a minute; the same command then ends the run."""
    command = torchrun(tmp_path, steps=40)
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
    ) as job:
        while not (tmp_path / "smi-auto.pt").exists() and job.poll() is None:
            time.sleep(0.05)
        ranks = subprocess.run(
            ["pgrep", "-P", str(job.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        assert len(ranks) == 2
        start = time.monotonic()
        os.kill(int(ranks[1]), signal.SIGKILL)
        said = job.communicate(timeout=90)[1]
        assert time.monotonic() - start < 60
    assert job.returncode != 0
    assert "Signal 9" in said or "SIGKILL" in said

    done = subprocess.run(
        torchrun(tmp_path, steps=40), cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (record,) = map(json.loads, (tmp_path / "run.jsonl").read_text().splitlines()[1:])
    assert record["steps"] == len(record["curve"]) == 40
