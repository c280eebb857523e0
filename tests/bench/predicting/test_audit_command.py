"""``lossbench audit`` writes and checks the table of the Triton that is installed."""

import importlib.util
from dataclasses import replace

import pandas as pd
import pytest
from command_line import assert_one_line_error, call_lossbench

from lossbench.bench.predicting import audit, bounds, steps
from lossbench.bench.predicting.bounds import Task
from lossbench.bench.predicting.versions import section
from lossbench.kernels import configs

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="there is no triton for this platform"
)


@pytest.fixture(scope="module")
def smallest():
    return next(each for each in audit.launches(90) if each.name == "mean_kernel")


@pytest.fixture(autouse=True)
def one_kernel(monkeypatch, smallest):
    """Not minutes of compiling."""
    monkeypatch.setattr(audit, "launches", lambda capability: [smallest])


@pytest.fixture
def one_step(monkeypatch):
    """A short one, by few kernels."""
    case = replace(steps.cases()[0], batch=64, dim=2048)
    monkeypatch.setattr(steps, "cases", lambda: [case])


def run(*arguments):
    return call_lossbench("audit", "--capability", "90", *map(str, arguments))


def test_a_table_that_was_written_is_fresh(tmp_path):
    path = tmp_path / "AUDIT.md"
    written = run("--out", path)
    assert (written.returncode, section(path.read_text(), audit.version())) == (0, written.stdout)
    assert run("--check", path).returncode == 0


def test_another_table_is_stale(tmp_path):
    path = tmp_path / "AUDIT.md"
    path.write_text(f"## triton {audit.version()}\n\n| old |\n\n## triton 3.0.0\n\n| other |\n")
    result = run("--check", path)
    assert result.returncode == 1
    assert f"AUDIT.md is stale; run lossbench audit --out {path}" in result.stderr
    assert run("--out", path).returncode == run("--check", path).returncode == 0
    assert section(path.read_text(), "3.0.0") == "| other |\n"


def test_there_may_be_no_table_of_this_version(tmp_path):
    path = tmp_path / "AUDIT.md"
    path.write_text("## triton 3.0.0\n\n| other |\n")
    result = run("--check", path)
    assert result.returncode == 0
    assert f"no table of triton {audit.version()}: nothing to compare with" in result.stderr


def test_spills_fail_with_and_without_a_table(tmp_path, monkeypatch):
    path = tmp_path / "AUDIT.md"
    path.write_text("## triton 3.0.0\n\n| other |\n")
    monkeypatch.setattr(audit, "resources", lambda *_: (255, 8))
    for arguments in ((), ("--check", path)):
        result = run(*arguments)
        assert (result.returncode, "spills 8 bytes" in result.stderr) == (1, True)


@pytest.mark.parametrize("bounds_too", [(), ("--bounds",)])
def test_a_file_that_is_not_there(tmp_path, bounds_too):
    assert_one_line_error(run("--check", tmp_path / "none", *bounds_too), "none is no file")


@pytest.mark.parametrize("bounds_too", [(), ("--bounds",)])
@pytest.mark.parametrize("option", ["--check", "--out"])
def test_a_file_without_text_is_named_before_anything_is_compiled(tmp_path, option, bounds_too):
    path = tmp_path / "table"
    path.write_bytes(b"\xff\xfe\x00")
    assert_one_line_error(run(option, path, *bounds_too), "table is no table: it holds no text")


def test_bounds_that_were_written_are_fresh(tmp_path, one_step):
    path = tmp_path / "bounds.csv"
    written = run("--bounds", "--out", path)
    assert written.returncode == 0
    assert "A bound is no prediction" in written.stdout
    assert max(map(len, written.stdout.splitlines())) <= 80
    assert run("--bounds", "--check", path).returncode == 0
    found = pd.read_csv(path)
    assert found["kernel"].iloc[-1] == "step"
    assert found["share"].dropna().between(0, 1, inclusive="right").all()


def test_other_bounds_are_stale_and_others_rows_are_kept(tmp_path, one_step):
    path = tmp_path / "bounds.csv"
    run("--bounds", "--out", path)
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    before = rows.assign(state="before", share="0.1")
    pd.concat([before, rows.assign(share="0.2")]).to_csv(path, index=False)
    result = run("--bounds", "--check", path)
    assert result.returncode == 1
    assert f"is stale; run lossbench audit --bounds --out {path}" in result.stderr
    assert run("--bounds", "--out", path).returncode == 0
    after = pd.read_csv(path, dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(after, pd.concat([before, rows], ignore_index=True))


def test_no_bounds_of_this_version(tmp_path, one_step):
    path = tmp_path / "bounds.csv"
    path.write_text("state,triton,cc\nnow,3.0.0,90\n")
    result = run("--bounds", "--check", path)
    assert (result.returncode, "nothing to compare with" in result.stderr) == (0, True)
    path.write_text("")
    assert "nothing to compare with" in run("--bounds", "--check", path).stderr
    path.write_text("a,b\n1,2\n")
    assert_one_line_error(run("--bounds", "--out", path), "bounds.csv is no table of bounds")


def test_a_step_is_what_its_shape_needs(monkeypatch):
    """Rows are 2 x 64, padded to 2 x 128; their Gram is two tiles of 128 x 256, of 8 parts each."""
    sizes = {"rows": 128, "columns": 256, "step": 64, "strip": 64, "processors": 132}
    config = replace(configs.table()["90"]["16-bit"], **sizes)
    monkeypatch.setattr(configs, "table", lambda: {"90": {"16-bit": config}})
    case = replace(steps.cases()[0], batch=64, dim=2048)
    monkeypatch.setattr(steps, "cases", lambda: [case, replace(case, pass_="forward")])
    step, forward = steps.steps(90)
    made, finished = step.parts
    assert [part.launch.name for part in step.parts] == ["split_kernel", "finish_kernel"]
    assert made.task == Task(tiles=2 * 8, macs=128 * 256 * 2048 // 8, programs=2 * 8)
    assert finished.task == Task(tiles=2 * 2 * 4, macs=0, programs=2 * 2 * 4)  # of 64 x 64
    # G, the Gram's gradient, times the rows, and its two sums of each row times the views' means
    assert step.library_macs == 256 * 256 * 2048 + 256 * 2 * 2048
    assert forward.library_macs == 0
    # 16-bit views are read; rows are written and read, and fp32 parts of products
    moved = 2 * 64 * 2048 * 2 + 2 * (256 * 2048 * 2) + 2 * (8 * 256 * 256 * 4)
    assert forward.moved_bytes == pytest.approx(moved, rel=0.01)
    # each of 16 parts reads 256 features of 128 rows and of 256 others, on 132 multiprocessors
    loaded = 16 * (128 + 256) * 256 * 2
    assert made.loaded * made.bound.cycles == pytest.approx(loaded / 132)


def test_a_step_is_its_launches_one_after_another(one_step):
    (step,) = steps.steps(90)
    assert {part.launch.name for part in step.parts} >= {"finish_kernel"}
    needed = step.case.cost.macs("step")
    made = sum(part.count * part.task.tiles * part.task.macs for part in step.parts)
    assert made + step.library_macs >= needed
    peak = needed / 2048 / 132
    launches = sum(part.count * bounds.bound(part.code, part.task).cycles for part in step.parts)
    assert step.share == pytest.approx(peak / (launches + step.library_macs / 2048 / 132))
