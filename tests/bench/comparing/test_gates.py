"""Gates: a real regression fails, noise and other machines do not."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_alone

from lossbench.bench.comparing.gates import EXACT, Baseline

ROOT = Path(__file__).parents[3]
GOOD = {
    "macs_cost_model": 1000,
    "macs_flop_counter": 1000,
    "forward_macs_fvcore": 1000,
    "off_diagonal_entries": 10,
    "communicated_bytes": 0,
    "saved_bytes": 500,
    "peak_bytes": 10_000,
    "device": "cpu",
    "machine": "this one",
    "status": "ok",
    "reason": "",
    "time_ratio": {"value": 1.5, "least": 1.4, "most": 1.6},
}


@pytest.fixture
def baseline(tmp_path):
    made = Baseline(tmp_path / "baseline.json")
    made.update("case", GOOD)
    made.write()
    return Baseline(tmp_path / "baseline.json")


def test_the_baseline_itself_passes(baseline):
    assert baseline.check("case", GOOD) == []


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("change", [-1, 1])
def test_counts_fail_on_one_unit(baseline, name, change):
    (problem,) = baseline.check("case", GOOD | {name: GOOD[name] + change})
    assert problem.startswith(f"{name} is ")


@pytest.mark.parametrize(
    ("peak", "fails"), [(10_100, False), (9_900, False), (10_101, True), (9_899, True)]
)
def test_peak_fails_beyond_one_per_cent(baseline, peak, fails):
    assert bool(baseline.check("case", GOOD | {"peak_bytes": peak})) == fails


def test_time_fails_only_if_the_whole_interval_is_above(baseline):
    noisy = GOOD | {"time_ratio": {"value": 2.5, "least": 1.7, "most": 4.0}}
    assert baseline.check("case", noisy) == []
    slower = GOOD | {"time_ratio": {"value": 1.95, "least": 1.9, "most": 2.0}}
    (problem,) = baseline.check("case", slower)
    assert problem == "takes 1.95 times its yardstick's time (99.9%: 1.90 to 2.00), baseline 1.50"
    assert baseline.unchecked == []
    assert baseline.check("case", slower | {"machine": "another"}) == []
    assert baseline.unchecked == ["case: no time ratio of another in the baseline"]


def test_a_device_without_a_baseline_is_said(baseline):
    assert baseline.check("case", GOOD | {"device": "cuda"}) == []
    assert baseline.unchecked == ["case: no peak memory of cuda in the baseline"]


def test_a_count_that_is_missing_is_said_and_not_compared(baseline, tmp_path):
    without = GOOD | {"forward_macs_fvcore": None, "counts_note": "fvcore is not installed"}
    assert baseline.check("case", without) == []
    assert baseline.unchecked == ["case: fvcore is not installed"]
    (problem,) = baseline.check("case", without | {"macs_flop_counter": 999})
    assert problem == "macs_flop_counter is 999, baseline 1,000"
    made = Baseline(tmp_path / "without.json")
    made.update("case", without)
    assert made.check("case", GOOD) == []
    assert made.unchecked == ["case: no forward_macs_fvcore in the baseline"]


def test_a_wrong_value_fails(baseline):
    wrong = GOOD | {"status": "invalid", "reason": "the value is 2; in fp64 it is 1"}
    assert baseline.check("case", wrong) == ["the value is 2; in fp64 it is 1"]


def test_a_damaged_baseline_is_named(tmp_path):
    (tmp_path / "baseline.json").write_text("{")
    with pytest.raises(ValueError, match=r"baseline\.json is not JSON .*restore it from git"):
        Baseline(tmp_path / "baseline.json")


def test_an_unknown_case_fails(baseline):
    assert baseline.check("new", GOOD) == ["new is not in baseline.json"]


def test_another_device_adds_its_peak_and_keeps_the_first(baseline):
    baseline.update("case", GOOD | {"device": "cuda", "peak_bytes": 77})
    baseline.write()
    entry = json.loads(baseline.path.read_text())["case"]
    assert entry["peak_bytes"] == {"cpu": 10_000, "cuda": 77}


REGRESSIONS = {
    "macs_flop_counter is": ("ab = a @ b.T", "ab = (a @ b.T + a @ b.T) / 2"),
    "saved_bytes is": ("ab = a @ b.T /", "ab = (a * 1.0) @ b.T /"),
    "times its yardstick's time": ("a, b = unit", "__import__('time').sleep(0.1)\n    a, b = unit"),
    "peak_bytes is": ("ab = a @ b.T /", "waste = torch.empty(1024, 1024)\n    ab = a @ b.T /"),
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A copy of the repository to break."""
    folder = tmp_path_factory.mktemp("scratch") / "copy"
    ignore = shutil.ignore_patterns(".*", "runs", "__pycache__", "results")
    shutil.copytree(ROOT, folder, ignore=ignore, symlinks=True)
    # the committed baseline may be another machine's
    update = benchmark(folder, "-k", "nt_xent and step", "--benchmark-update-baseline")
    assert update.returncode == 0, update.stdout
    return folder


def benchmark(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--benchmark", "-p", "no:cacheprovider"]
    command += ["--benchmark-max-time=0.05", *arguments]
    return run_alone(command, folder)


@pytest.mark.long
@pytest.mark.parametrize("problem", REGRESSIONS)
def test_a_regression_of_a_scratch_copy_is_caught(scratch, problem):
    file = scratch / "losses" / "nt_xent.py"
    original = file.read_text()
    old, new = REGRESSIONS[problem]
    assert old in original
    file.write_text(original.replace(old, new))
    try:
        result = benchmark(scratch, "-k", "nt_xent-reference and step")
    finally:
        file.write_text(original)
    assert result.returncode == 1
    assert problem in result.stdout
    assert "if this is meant, run pytest --benchmark --benchmark-update-baseline" in result.stdout


SLOWER = '''

def padded(hp: NTXent, z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
    """gram, made slower."""
    for _ in range(WASTE):
        torch.sort(z_a.detach().flatten())
    return gram(hp, z_a, z_b)


from lossbench.losses.registry import spec

spec("nt_xent").implementations["gram"] = padded
'''


@pytest.mark.long
def test_a_slower_implementation_is_caught_and_a_noisy_machine_is_not(scratch):
    file = scratch / "losses" / "nt_xent.py"
    original = file.read_text()
    only = ["-k", "nt_xent-gram and step"]
    try:
        file.write_text(original + SLOWER.replace("WASTE", "0"))
        with busy_machine():
            result = benchmark(scratch, *only)
        assert result.returncode == 0, result.stdout
        file.write_text(original + SLOWER.replace("WASTE", "5"))
        result = benchmark(scratch, *only)
        assert result.returncode == 1
        assert "times its yardstick's time" in result.stdout
    finally:
        file.write_text(original)


@contextlib.contextmanager
def busy_machine():
    """Keep a core busy with another process."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
