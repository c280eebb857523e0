"""``lossbench`` as a user meets it: help at once, one-line errors, results where asked for."""

import json
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from command_line import QUIET, assert_one_line_error, call_lossbench, lossbench, said

from lossbench.bench.cases.case import Case
from lossbench.bench.interface.parsing import parse_seconds
from lossbench.bench.running.sweep import Outcome
from lossbench.losses.auto import can_compile

REFERENCE = ["--implementation", "reference"]
SMALL = ["--loss", "smi,vicreg", *REFERENCE, "--batch", "8", "--dim", "16", "--pass", "forward"]


def test_help_imports_nothing_heavy():
    code = (
        "import sys, runpy\n"
        "sys.argv = ['lossbench', 'run', '--help']\n"
        "try:\n    runpy.run_module('lossbench', run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'pandas', 'numpy', 'fvcore', 'triton', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.endswith("[]\n"), result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "choose cases: --suite efficiency"),
        (
            ["--suite", "efficency"],
            "did you mean 'efficiency'.* known: distributed, efficiency, gpu, .*, scaling, smoke",
        ),
        (["--loss", "barlow"], "unknown loss 'barlow'; did you mean 'barlow_twins'.*known:"),
        (["--loss", "smi", "--implementation", "refrence"], "did you mean 'reference'.*known:"),
        (["--loss", "smi", "--dtype", "float23"], "did you mean 'float32'.*bfloat16, float16"),
        (["--loss", "smi", "--pass", "backward"], "unknown pass 'backward'.*forward_grad, step"),
        (
            ["--loss", "smi", "--distribution", "x"],
            "unknown distribution of smi 'x'.*gather, gram, local",
        ),
        (["--loss", "smi", "--batch", "1"], "batch must be at least 2 .*got 1"),
        (
            ["--loss", "smi", "--batch", "99999999999"],
            "below 2.31, got 99999999999",
        ),
        (["--loss", ","], "a list is written a,b,c without gaps, got ','"),
        (["--loss", "smi", "--dim", "0"], "dim must be at least 1 .*got 0"),
        (["--loss", "smi", "--world", "0"], "world must be at least 1 .*got 0"),
        (["--loss", "smi", "--batch", "many"], "--batch needs whole numbers.*got 'many'"),
        (["--loss", "smi", "--inputs", "digit"], "unknown inputs 'digit'; did you mean 'digits'"),
        (["--loss", "smi", "--inputs", "file:no.npz"], "no.npz: no such file"),
        (["--loss", "smi", "--set", "smi.lamda_=1"], "did you mean 'lambda_'"),
        (["--loss", "smi", "--set", "smi.lambda_=-1"], "lambda_ must be a finite number, 0 or"),
        (["--loss", "smi", "--set", "smi.lambda_=x"], "lambda_ must be a finite number.*got 'x'"),
        (["--loss", "smi", "--set", "vicreg.eps=1"], "vicreg is not among the cases"),
        (["--loss", "smi", "--set", "eps=1"], "--set needs loss.name=value, got 'eps=1'"),
        (["--loss", "smi", "--set", "smi.chunked.workspace=1"], "did you mean 'workspace_bytes'"),
        (["--loss", "smi", "--set", "smi.gram.workspace_bytes=1"], "smi gram has no options"),
        (["--loss", "smi", "--set", "smi.workspace_bytes=1"], "unknown hyperparameter of smi"),
        (["--loss", "smi", "--set", "smi.chunkd.workspace_bytes=1"], "smi.chunkd is not among"),
        (
            ["--loss", "smi", "--set", "smi.chunked.workspace_bytes=0"],
            "workspace_bytes must be a whole number",
        ),
        (["--loss", "smi", "--set", "smi.a.b.c=1"], "--set needs loss.name=value, got"),
        (["--loss", "smi", "--device", "tpu"], "unknown device 'tpu'.*known: cpu, cuda"),
        (["--lss", "smi"], "No such option"),
    ],
)
def test_bad_choices_are_one_line_on_stderr(arguments, message):
    assert_one_line_error(call_lossbench("count", *arguments), message)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for the error without a GPU")
def test_cuda_where_there_is_none():
    assert_one_line_error(lossbench("run", *SMALL, "--device", "cuda"), "no CUDA device here")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "soon"], "a duration is written 90s, 3m or 1h30m, got 'soon'"),
        (["--timeout", "0"], "a duration is written.*got '0'"),
        (["--out", "/proc/nowhere/run.jsonl"], "/proc/nowhere/run.jsonl cannot be written"),
        (["--out", "/"], "cannot be written"),
    ],
)
def test_bad_run_options_measure_nothing(arguments, message):
    assert_one_line_error(call_lossbench("run", *SMALL, *arguments), message)


def test_run_prints_a_table_of_at_most_80_columns_and_resumes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = ["--out", "run.jsonl"]
    first = call_lossbench("run", *SMALL, *out)
    assert first.returncode == 0, first.stderr
    assert "2 done now, 2 of 2 cases" in first.stderr
    assert max(map(len, first.stdout.splitlines())) <= 80
    names = [line.split()[0] for line in first.stdout.splitlines()]
    assert names[:4] == ["loss", "smi", "vicreg", "next:"]
    second = call_lossbench("run", *SMALL, *out)
    assert "0 done now, 2 of 2 cases" in second.stderr
    assert second.stdout == first.stdout


@pytest.mark.parametrize(("device", "status"), [("cuda", 0), ("cpu", 1)])
def test_what_does_not_fit_a_gpu_is_a_result_and_no_failure(tmp_path, monkeypatch, device, status):
    case = Case("smi", batch=8, dim=16).describe() | {"key": "k", "device": device}
    record = case | {"status": "oom", "reason": "2 GB more did not fit"}
    outcome = Outcome([record], measured=1, left=0)
    monkeypatch.setattr("lossbench.bench.interface.functions.run", lambda *_, **__: outcome)
    done = call_lossbench("run", *SMALL, "--out", str(tmp_path / "run.jsonl"))
    assert (done.returncode, "2 GB more did not fit" in done.stdout) == (status, True)


def test_run_as_json_prints_the_records(tmp_path):
    path = tmp_path / "run.jsonl"
    result = call_lossbench("run", *SMALL, "--json", "--out", str(path))
    lines = path.read_text().splitlines()
    assert json.loads(result.stdout) == [json.loads(line) for line in lines[1:]]
    header = json.loads(lines[0])
    assert header["environment"]["torch"] == torch.__version__
    assert header["environment"]["threads"] == torch.get_num_threads()
    assert {"cpu", "memory_bytes", "numpy", "triton", "driver"} <= header["environment"].keys()
    assert {"git_commit", "git_dirty", "code_hash", "environment_hash"} <= header.keys()


def test_a_list_replaces_only_its_part_of_a_suite():
    result = call_lossbench(
        "count", "--suite", "efficiency", "--loss", "smi", "--world", "4", "--json"
    )
    layouts = {(r["batch"], r["world"], r["distribution"]) for r in json.loads(result.stdout)}
    assert layouts == {(256, 4, "local"), (256, 4, "gather")}


def test_rows_that_differ_look_different():
    dtypes = call_lossbench("count", "--loss", "smi", "--dim", "16", "--dtype", "float32,bfloat16")
    assert "smi bfloat16" in dtypes.stdout
    variant = call_lossbench("count", "--loss", "smi", "--dim", "16", "--set", "smi.lambda_=2")
    assert "smi lambda_=2 " in variant.stdout


def test_a_long_label_gives_way_and_no_number_is_cut():
    result = call_lossbench("count", "--loss", "smi", "--set", "smi.dependency=squared_correlation")
    assert "4.832" in result.stdout  # 9 x 256^2 x 8192 MACs, in 10^9
    assert "\u2026" not in result.stdout


def test_what_the_budget_leaves_out_is_no_failure_and_no_noise(tmp_path):
    out = ["--out", str(tmp_path / "run.jsonl"), "--budget", "0.1s"]
    result = call_lossbench(
        "run", "--loss", "smi", *REFERENCE, "--batch", "8,16", "--dim", "16", *out
    )
    assert result.returncode == 0
    assert "the budget of 0.1s left out" in result.stderr
    assert "not measured" not in result.stdout


def test_no_arguments_show_the_help():
    result = lossbench()
    assert result.returncode == 0
    assert "Commands" in result.stdout
    assert len(result.stdout.splitlines()) > 5


@pytest.mark.long
def test_ci_gets_plain_progress_and_a_pipe_gets_none(tmp_path):
    piped = lossbench("run", *SMALL, "--out", str(tmp_path / "a.jsonl"))
    assert len(said(piped)) == 1  # the summary
    plain = lossbench("run", *SMALL, "--out", str(tmp_path / "b.jsonl"), env=QUIET | {"CI": "true"})
    assert re.search(r"\[1/2\] smi-reference-8x16-float32-forward: ok, [\d.]+ ms", plain.stderr)


@pytest.mark.long
@pytest.mark.skipif(not can_compile(), reason="needs a C++ compiler")
def test_compiling_leaves_nothing_behind(tmp_path):
    """The compiler makes a semaphore, of whose leak Python warns once a killed process left it."""
    case = ["--loss", "smi", "--implementation", "compiled", "--batch", "8", "--dim", "16"]
    result = lossbench("run", *case, "--out", str(tmp_path / "run.jsonl"))
    assert result.returncode == 0, result.stderr
    (summary,) = said(result)
    assert summary.startswith("1 done now")


def test_own_embeddings_say_what_n_and_d_are(tmp_path):
    generator = np.random.default_rng(0)
    path = tmp_path / "own.npz"
    z_a, z_b = generator.standard_normal((2, 10, 6), dtype=np.float32)
    np.savez(path, z_a=z_a, z_b=z_b)
    own = ["--loss", "smi", *REFERENCE, "--inputs", f"file:{path}"]
    out = ["--out", str(tmp_path / "run.jsonl"), "--json"]
    (record,) = json.loads(call_lossbench("run", *own, *out).stdout)
    assert (record["batch"], record["dim"]) == (10, 6)
    correlation = np.corrcoef(np.concatenate([z_a, z_b]).astype(np.float64))
    dependency = -0.5 * np.log(1 - np.clip(correlation, -1, 1) ** 2 + 1e-6)
    off = ~np.eye(10, dtype=bool)
    blocks = [dependency[:10, 10:], dependency[:10, :10], dependency[10:, 10:]]
    expected = np.mean((1 - np.diag(blocks[0])) ** 2)
    expected += 10 * np.mean([np.mean(block[off] ** 2) for block in blocks])
    assert record["value"] == pytest.approx(expected, rel=1e-5)
    assert_one_line_error(call_lossbench("run", *own, "--batch", "11"), "holds 10 x 6 embeddings")
    assert_one_line_error(call_lossbench("run", *own, "--dim", "7"), "holds 10 x 6 embeddings")


def test_embeddings_with_nan_are_refused_before_anything_runs(tmp_path):
    z_a = np.ones((4, 3), dtype=np.float32)
    z_a[2, 1] = np.nan
    np.savez(tmp_path / "nan.npz", z_a=z_a, z_b=np.ones((4, 3), dtype=np.float32))
    result = call_lossbench("run", "--loss", "smi", "--inputs", f"file:{tmp_path}/nan.npz")
    assert_one_line_error(result, "z_a holds 1 NaN or infinite value.*row 2, column 1")


@pytest.mark.long
def test_restart_sets_a_run_of_other_code_aside(tmp_path):
    path = tmp_path / "run.jsonl"
    lossbench("run", *SMALL, "--out", str(path))
    header, *records = path.read_text().splitlines()
    old = json.dumps(json.loads(header) | {"code_hash": "older"})
    path.write_text("\n".join([old, *records]) + "\n")
    assert_one_line_error(call_lossbench("run", *SMALL, "--out", str(path)), "add --restart")
    result = lossbench("run", *SMALL, "--out", str(path), "--restart")
    assert result.returncode == 0
    assert "2 done now" in result.stderr
    assert (tmp_path / "run.1.jsonl").read_text().startswith(old)


def test_a_failed_case_is_a_row_with_exit_status_1(tmp_path):
    arguments = ["--loss", "smi", *REFERENCE, "--batch", "64", "--dim", "64"]
    arguments += ["--timeout", "0.001s"]
    result = call_lossbench("run", *arguments, "--out", str(tmp_path / "run.jsonl"))
    assert result.returncode == 1
    assert "timeout: not finished after 0.001 s" in result.stdout


@pytest.mark.long
def test_a_full_disk_is_one_line_and_the_file_stays_readable(tmp_path):
    path = tmp_path / "run.jsonl"
    result = lossbench(
        "run",
        *["--suite", "smoke", "--out", str(path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)),
    )
    assert_one_line_error(result, r"cannot be written.*it keeps its [1-9]\d* record")
    lines = path.read_text().splitlines()
    assert len([json.loads(line) for line in lines]) > 1


def test_interrupt_says_how_to_resume(tmp_path):
    path = tmp_path / "run.jsonl"
    command = [sys.executable, "-m", "lossbench", "run", "--suite", "scaling"]
    process = subprocess.Popen(
        [*command, "--out", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=QUIET,
        # a shell without job control starts its children with the signal ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not path.exists() or path.read_bytes().count(b"\n") < 2:  # header and a record
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.endswith("lossbench: interrupted; run the same command again to resume\n")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("3m", 180), ("1h30m", 5400), ("2.5s", 2.5)]
)
def test_durations(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "3 m", "-1", "1d", "s", "0s"])
def test_what_is_not_a_duration(text):
    with pytest.raises(ValueError, match="a duration is written"):
        parse_seconds(text)
