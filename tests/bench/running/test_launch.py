"""``--launcher``: jobs that submitit really starts here, by its local executor or a fake Slurm."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import chain
from pathlib import Path

import fake_slurm
import pytest
import submitit
import tasks
from command_line import HERE, ROOT, assert_one_line_error, call_lossbench

from lossbench.bench.interface.progress import Jobs
from lossbench.bench.records import runfile
from lossbench.bench.records.environment import code_hash
from lossbench.bench.records.runfile import RunFileError, StaleRunError, Writer
from lossbench.bench.running.jobs import Shard
from lossbench.bench.running.launch import Launcher
from lossbench.bench.running.shards import Work, deal, merge, share

GRID = (
    *("--loss", "smi,vicreg,nt_xent", "--implementation", "reference", "--batch", "8"),
    *("--dim", "16", "--pass", "forward", "--device", "cpu"),
)
LOCAL = Launcher("local", 2, {"time": 2})
CODE = code_hash()


def work(names, gpu=tasks.GPU):
    return Work(
        [[name] for name in names],
        lambda name, head: f"{name} on {head['environment_hash']}",
        lambda _, found: all(each and each["status"] == "ok" for each in found),
        partial(tasks.measure, head=tasks.header(CODE, gpu)),
    )


@pytest.fixture
def quick(monkeypatch):
    """Jobs find the tasks of this file, and a result that a killed job left is not waited for."""
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{ROOT}")
    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 0)


def names_in(path):
    return [each["loss"] for each in runfile.read(path).records]


def logs(out):
    return sorted(out.with_name(f"{out.name}.shards").glob("*_log.err"))


def test_shards_are_the_units_each_once_and_begin_with_what_matters_most():
    units = [["a", "b"], ["c"], ["d", "e"], ["f"], ["g"]]
    for jobs in range(1, 8):
        shards = deal(units, jobs)
        assert len(shards) == min(jobs, len(units))
        assert sorted(chain.from_iterable(shards)) == list("abcdefg")
        assert [shard[0] for shard in shards] == [unit[0] for unit in units[: len(shards)]]
        for shard in shards:
            assert ("a" in shard) == ("b" in shard)
            assert ("d" in shard) == ("e" in shard)


def test_jobs_share_the_work_and_what_is_done_is_not_submitted_again(tmp_path, quick, capsys):
    out = tmp_path / "run.jsonl"
    shared = share(LOCAL, work("abc"), out, False, Jobs())
    assert [each["loss"] for each in shared.records] == ["a", "b", "c"]
    assert (shared.measured, shared.failed) == (3, False)
    assert runfile.read(out).header == tasks.header(CODE)
    assert len(logs(out)) == 2
    assert capsys.readouterr().err.count("submitted: ") == 2

    content = out.read_bytes()
    again = share(LOCAL, work("abc"), out, False, Jobs())
    assert (again.records, again.measured, again.failed) == (shared.records, 0, False)
    assert out.read_bytes() == content
    assert capsys.readouterr().err == ""

    more = share(LOCAL, work("abcd"), out, False, Jobs())
    assert more.measured == 1
    assert len(logs(out)) == 3
    assert not list(tmp_path.glob("*.shards/*.jsonl"))


def test_what_jobs_that_failed_measured_is_kept_with_their_error_and_log(tmp_path, quick, capsys):
    out = tmp_path / "run.jsonl"
    three = Launcher("local", 3, {"time": 2})
    names = ["a", "b", "c", "raises", "is_killed", "d"]
    shared = share(three, work(names), out, False, Jobs())
    assert shared.failed
    assert sorted(names_in(out)) == ["a", "b", "c", "d"]
    assert [each and each["loss"] for each in shared.records] == ["a", "b", "c", None, None, "d"]
    errors = [line for line in capsys.readouterr().err.splitlines() if " failed: " in line]
    assert len(errors) == 2, errors
    for line, what, path in zip(
        errors, ["ValueError: no such file;", "ended without a result"], logs(out), strict=False
    ):
        assert what in line
        assert path.exists()
    said = Path(errors[0].split("log: ")[1]).read_text()
    assert 'raise ValueError("no such\\nfile")' in said

    resumed = share(LOCAL, work("abcd"), out, False, Jobs())
    assert (resumed.measured, resumed.failed) == (0, False)


def test_a_preempted_job_is_queued_again_and_goes_on(tmp_path, quick):
    out = tmp_path / "run.jsonl"
    shared = share(LOCAL, work(["a", "b", "is_preempted"]), out, False, Jobs())
    assert (shared.measured, shared.failed) == (3, False)
    assert any("Requeued" in path.read_text() for path in out.parent.glob("*/*_log.*"))


def write(path, *records, gpu=tasks.GPU, **changes):
    with Writer(path, {**tasks.header(CODE, gpu), **changes}) as writer:
        for each in records:
            writer.append(each)
    return path


def test_merging_twice_changes_nothing_and_what_is_ok_stays(tmp_path):
    out, folder = tmp_path / "run.jsonl", tmp_path / "run.jsonl.shards"
    write(out, tasks.record("a"), tasks.record("b", status="error"))
    failed = tasks.record("a", status="error")
    for _ in range(2):
        write(folder / "1.jsonl", failed, tasks.record("b"), created="2026-01-02")
        write(folder / "2.jsonl", tasks.record("b") | {"macs": 2}, created="2026-01-03")
        assert merge(out, folder) == []
        content = out.read_bytes()
        assert not list(folder.iterdir())
    assert out.read_bytes() == content
    assert len(content.splitlines()) == 1 + 2  # of b the record that counts
    assert [(each["status"], each["macs"]) for each in runfile.read(out).records] == [
        ("ok", 1),
        ("ok", 2),
    ]


def test_another_environment_is_kept_apart_and_most_records_decide(tmp_path):
    out, folder = tmp_path / "run.jsonl", tmp_path / "run.jsonl.shards"
    other = write(folder / "1.jsonl", tasks.record("a", "old"), gpu="old")
    write(folder / "2.jsonl", tasks.record("b"), tasks.record("c"))
    before = other.read_bytes()
    for _ in range(2):
        (line,) = merge(out, folder)
        assert line.startswith(
            f"{other} is kept apart, measured with another gpu ({tasks.GPU}, now old)"
        )
        assert names_in(out) == ["b", "c"]
        assert list(folder.iterdir()) == [other]
        assert other.read_bytes() == before


def test_a_record_of_another_environment_is_missing(tmp_path, quick):
    out = write(tmp_path / "run.jsonl", tasks.record("a"))
    shared = share(LOCAL, work("ab", gpu="other"), out, False, Jobs())
    assert [each and each["loss"] for each in shared.records] == ["a", None]
    assert shared.failed


def test_a_shard_that_is_still_written_is_kept_and_refuses_the_next_session(tmp_path):
    out, folder = tmp_path / "run.jsonl", tmp_path / "run.jsonl.shards"
    with Writer(folder / "1.jsonl", tasks.header(CODE)) as writer:
        writer.append(tasks.record("a"))
        merge(out, folder)
        assert names_in(out) == ["a"]
        assert (folder / "1.jsonl").exists()
        with pytest.raises(RunFileError, match=r"a job still writes .*1\.jsonl; wait for it"):
            share(LOCAL, work("ab"), out, False, Jobs())


def test_what_a_job_writes_last_while_others_are_merged_is_not_lost(tmp_path, monkeypatch):
    out, folder = tmp_path / "run.jsonl", tmp_path / "run.jsonl.shards"
    path, merge_rows = folder / "1.jsonl", runfile.merge
    with contextlib.ExitStack() as job:
        writer = job.enter_context(Writer(path, tasks.header(CODE)))
        writer.append(tasks.record("a"))

        def meanwhile(rows):
            writer.append(tasks.record("b"))
            job.close()
            return merge_rows(rows)

        monkeypatch.setattr(runfile, "merge", meanwhile)
        merge(out, folder)
    monkeypatch.undo()
    assert path.exists()
    merge(out, folder)
    assert names_in(out) == ["a", "b"]
    assert not path.exists()


def test_a_run_file_of_other_code_is_refused_or_set_aside(tmp_path, quick):
    out = write(tmp_path / "run.jsonl", tasks.record("a"), code_hash="other")
    with pytest.raises(StaleRunError, match="another version of lossbench's code"):
        share(LOCAL, work("a"), out, False, Jobs())
    assert share(LOCAL, work("a"), out, True, Jobs()).measured == 1
    assert names_in(tmp_path / "run.1.jsonl") == ["a"]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Where Slurm is; its folder."""
    for name, value in fake_slurm.install(tmp_path / "bin").items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "bin" / "state"


def test_slurm_jobs_measure_what_a_run_here_does(cluster, monkeypatch):
    """Through sbatch, srun and an array of two jobs; then nothing is left to submit."""
    monkeypatch.setenv("CI", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    slurm = ("--slurm", "time=3", "--slurm", "exclusive=true", "--slurm", "mem=2GB")
    command = ("run", *GRID, "--launcher", "slurm", "--jobs", "2", *slurm, "--out", "jobs.jsonl")
    done = call_lossbench(*command)
    assert done.returncode == 0, done.stderr
    assert "submitted: 1_0, 1_1\n" in done.stderr
    assert "[2/2] job" in done.stderr
    assert "3 done now, 3 of 3 cases in jobs.jsonl" in done.stderr
    submitted = {*(cluster / "1.sh").read_text().splitlines()}
    assert {f"#SBATCH --{flag}" for flag in ("exclusive", "time=3", "mem=2GB")} <= submitted

    here = call_lossbench("run", *GRID, "--out", "here.jsonl")
    assert here.returncode == 0, here.stderr
    runs = [runfile.read(Path(name)) for name in ("jobs.jsonl", "here.jsonl")]
    assert runs[0].header["environment"] == runs[1].header["environment"]
    assert runs[0].header["calibration"] != runs[1].header["calibration"]  # the job's own
    exact = ("status", "gmacs", "saved_bytes", "off_diagonal_entries", "forward_macs_cost_model")
    by_key = [{each["key"]: [each[name] for name in exact] for each in run.records} for run in runs]
    assert by_key[0] == by_key[1]
    order = [[line.split()[0] for line in each.stdout.splitlines()] for each in (done, here)]
    assert order == [["loss", "smi", "vicreg", "nt_xent", "next:"]] * 2

    again = call_lossbench(*command)
    assert again.returncode == 0
    assert "submitted" not in again.stderr
    assert again.stdout == done.stdout


def test_what_slurm_refuses_is_one_line(cluster):
    jobs = ("--launcher", "slurm", "--slurm", "partition=nowhere")
    message = "the jobs were refused: sbatch: error: invalid partition"
    said = call_lossbench("run", *GRID, *jobs, "--out", "run.jsonl")
    assert said.returncode == 2
    assert said.stderr.splitlines()[-1].startswith(f"lossbench: error: {message}")


@pytest.mark.long
def test_the_tasks_of_a_job_are_the_processes_of_pretraining(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out = tmp_path / "run.jsonl"
    done = call_lossbench(
        *("pretrain", "--launcher", "local", "--slurm", "tasks_per_node=2", "--slurm", "time=3"),
        *("--loss", "smi", "--implementation", "reference", "--steps", "5", "--batch", "8"),
        *("--set", "projector=32,16", "--set", "distribution=gather", "--device", "cpu"),
        *("--out", str(out)),
    )
    assert done.returncode == 0, done.stderr
    (made,) = runfile.read(out).records
    assert (made["world"], made["distribution"], made["steps"]) == (2, "gather", 5)
    assert len(logs(out)) == 2
    assert "smi reference" in done.stdout


@pytest.mark.long
def test_ctrl_c_cancels_the_jobs_and_keeps_what_they_measured(tmp_path):
    out = tmp_path / "run.jsonl"
    many = ["--loss", "smi", "--implementation", "reference", "--dim", "16", "--device", "cpu"]
    many += ["--batch", ",".join(map(str, range(8, 200)))]
    command = [sys.executable, "-m", "lossbench", "run", *many, "--out", str(out)]
    command += ["--launcher", "local", "--jobs", "1"]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # a shell without job control starts its children with the signal ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:
        while not any(b.count(b"\n") > 1 for b in shards_of(out)) and run.poll() is None:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=120)[1]
    assert run.returncode == 130, said
    assert said.splitlines()[-1].endswith("interrupted; run the same command again to resume")
    assert "Traceback" not in said
    assert 1 <= len(names_in(out)) < 192
    submitted = said.split("submitted: ")[1].split()[0]
    end = time.monotonic() + 20
    while Path(f"/proc/{submitted}").exists():
        assert time.monotonic() < end, "the job goes on"
        time.sleep(0.1)


def shards_of(out):
    return [path.read_bytes() for path in out.parent.glob("*.shards/*.jsonl")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "2"], "--jobs and --slurm are of jobs: add --launcher slurm or local"),
        (["--slurm", "time=3"], "add --launcher"),
        (["--launcher", "slrm"], "unknown launcher 'slrm'; did you mean 'slurm'.*local, slurm"),
        (["--launcher", "slurm"], "no sbatch here: .*use --launcher local"),
        (["--launcher", "local", "--jobs", "0"], "--jobs must be 1 or more, got 0"),
        (["--launcher", "local", "--slurm", "time"], "--slurm needs NAME=VALUE.*got 'time'"),
        (["--launcher", "local", "--slurm", "time=x"], "time must be a whole number.*got 'x'"),
        (["--launcher", "local", "--slurm", "partition=gpu"], "unknown --slurm parameter.*known:"),
        (["--launcher", "slurm", "--slurm", "partitoin=gpu"], "did you mean 'partition'"),
    ],
)
@pytest.mark.parametrize("command", ["run", "pretrain"])
def test_bad_choices_are_one_line_on_stderr(command, arguments, message, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert_one_line_error(call_lossbench(command, "--loss", "smi", *arguments), message)


def test_run_measures_one_device_and_searches_here(tmp_path):
    local = ("--launcher", "local", "--out", str(tmp_path / "run.jsonl"))
    ranks = call_lossbench("run", *GRID, *local, "--slurm", "tasks_per_node=2")
    assert_one_line_error(ranks, "run measures one device.*for pretrain")
    assert_one_line_error(call_lossbench("run", *GRID, *local, "--frontier"), "--launcher out")
    nowhere = call_lossbench("run", *GRID, *local[:2], "--out", "/proc/nowhere/run.jsonl")
    assert_one_line_error(nowhere, "/proc/nowhere/run.jsonl.shards cannot be written")


def test_without_submitit(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = call_lossbench("run", "--loss", "smi", "--launcher", "local")
    assert_one_line_error(said, r"--launcher needs submitit: pip install 'lossbench\[slurm\]'")


def test_slurm_nodes_have_gpus_that_the_login_node_lacks():
    asked = {"gres": "gpu:2"}, {"gpus_per_node": 8}, {"partition": "gpu"}
    assert all(Launcher("slurm", 1, each).there(None) == "cuda" for each in asked)
    assert Launcher("slurm", 1, {"partition": "cpu"}).there(None) == "cpu"
    assert Launcher("slurm", 1, {"gpus_per_node": 8}).there("cpu") == "cpu"


def test_a_shard_says_what_went_wrong_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lossbench.bench.running.jobs.helpers.TorchDistributedEnvironment", Quiet)
    monkeypatch.setattr("lossbench.bench.running.jobs.JobEnvironment", Quiet)
    assert (
        Shard(partial(tasks.measure, head=tasks.header(CODE)), ["raises"], tmp_path)()
        == "ValueError: no such file"
    )
    assert "Traceback" in capsys.readouterr().err
    assert json.loads((tmp_path / "7.jsonl").read_text()) == tasks.header(CODE)


class Quiet:
    job_id = "7"

    def export(self, **_):
        pass
