"""``pytest --benchmark``: selects the benchmarks, from anywhere, and reports what they cost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_alone

from lossbench.reports.records import load

ROOT = Path(__file__).parents[3]
CASES = 39  # three implementations of four losses, one of a fifth, three passes


def run_pytest(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return run_alone(command, folder)


def test_without_the_option_benchmarks_are_deselected():
    result = run_pytest(
        "--collect-only", "-q", "tests/benchmarks", "tests/bench/measuring/test_timing.py"
    )
    assert "test_cost" not in result.stdout
    assert "test_timing.py::" in result.stdout
    assert "deselected" in result.stdout


@pytest.mark.parametrize("folder", [".", "losses", "tests", "tests/benchmarks", "reports/tables"])
def test_with_the_option_only_benchmarks_run_from_any_folder(folder):
    result = run_pytest("--benchmark", "--collect-only", "-q", folder=ROOT / folder)
    collected = [line for line in result.stdout.splitlines() if "::" in line]
    assert sum("test_cost[" in line for line in collected) == CASES
    assert all(line.startswith("tests/benchmarks/") for line in collected)


def test_updating_the_baseline_without_running_benchmarks_is_refused():
    result = run_pytest("--benchmark-update-baseline", "tests/bench/measuring/test_timing.py")
    assert result.returncode == 4
    assert "--benchmark-update-baseline needs --benchmark" in result.stderr


@pytest.mark.long
def test_explicit_paths_are_respected():
    everything = run_pytest("--benchmark", "--collect-only", "-q", "tests")
    assert everything.stdout.count("test_cost[") >= CASES
    nothing = run_pytest(
        "--benchmark", "--collect-only", "-q", "tests/bench/measuring/test_timing.py"
    )
    assert "::" not in nothing.stdout
    assert nothing.returncode == 5


def test_json_holds_counts_peak_device_and_case(tmp_path):
    path = tmp_path / "benchmark.json"
    options = [
        "--benchmark-max-time=0.05",
        f"--benchmark-json={path}",
        "-k",
        "smi-reference and forward]",
    ]
    result = run_pytest("--benchmark", *options)
    assert result.returncode == 0, result.stdout
    (benchmark,) = json.loads(path.read_text())["benchmarks"]
    info = benchmark["extra_info"]
    assert info["macs"] == 3 * 256**2 * 1024
    assert info["peak_bytes"] > 4 * 256**2
    assert (info["device"], info["loss"], info["pass"]) == ("cpu", "smi", "forward")
    assert (info["batch"], info["dim"], info["dtype"]) == (256, 1024, "float32")
    assert info["spin_slowdown"] >= 1
    assert load([path])["spin_slowdown"].tolist() == [info["spin_slowdown"]]


@pytest.mark.long
def test_save_and_compare_work_as_users_know_them(tmp_path):
    storage = f"--benchmark-storage={tmp_path}"
    quick = [
        "--benchmark",
        "--benchmark-max-time=0.05",
        storage,
        "-k",
        "vicreg-reference and forward]",
    ]
    assert run_pytest(*quick, "--benchmark-save=first").returncode == 0
    result = run_pytest(*quick, "--benchmark-compare")
    assert result.returncode == 0, result.stdout
    assert "(0001_first)" in result.stdout


OTHERS = """
def test_plain():
    assert True

def test_quick(benchmark):
    benchmark(lambda: None)
"""


@pytest.fixture
def elsewhere(tmp_path):
    """A repository that has nothing of ours."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_others.py").write_text(OTHERS)
    return tmp_path


def test_other_repositories_run_as_ever(elsewhere):
    ordinary = run_pytest(folder=elsewhere)
    assert "2 passed" in ordinary.stdout
    assert "deselected" not in ordinary.stdout


def test_other_repositories_have_the_option(elsewhere):
    only = run_pytest("--benchmark", folder=elsewhere)
    assert "1 passed, 1 deselected" in only.stdout
    assert "test_quick" in only.stdout


@pytest.mark.long
def test_other_repositories_may_benchmark_cases(elsewhere):
    (elsewhere / "test_others.py").write_text(
        "from lossbench.bench.cases.case import Case\n"
        "def test_mine(benchmark_case):\n"
        "    benchmark_case(Case('smi', batch=8, dim=4))\n"
    )
    ordinary = run_pytest(folder=elsewhere)
    assert "1 deselected" in ordinary.stdout
    quick = "--benchmark", "--benchmark-max-time=0.05"
    first = run_pytest(*quick, folder=elsewhere)
    assert "is not in baseline.json" in first.stdout
    assert run_pytest(*quick, "--benchmark-update-baseline", folder=elsewhere).returncode == 0
    assert (elsewhere / "tests/benchmarks/baseline.json").exists()
    assert run_pytest(*quick, folder=elsewhere).returncode == 0


def test_the_plugin_imports_nothing_of_ours_before_a_benchmark_runs(elsewhere):
    (elsewhere / "test_others.py").write_text(
        "import sys\n"
        "def test_light():\n"
        "    heavy = {'torch', 'numpy', 'pandas', 'typer', 'lossbench.losses'}\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    alone = run_pytest("-p", "no:hypothesispytest", "-p", "no:xdist", folder=elsewhere)
    assert "1 passed" in alone.stdout, alone.stdout
