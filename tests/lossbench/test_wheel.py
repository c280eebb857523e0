"""The wheel: one package, with all that it needs."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("bench", "kernels", "losses", "reports")
DATA = ("*.json", "*.csv", "py.typed")
UNREAD = {"kernels/bounds.csv"}
"""Tables that stand beside the code for the audit to compare: no module reads them."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, as an installation from a clone is."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "runs", "__pycache__")
    copy = shutil.copytree(ROOT, folder / "copy", symlinks=True, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--wheel-dir", str(folder), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.long
def test_it_installs_one_name_and_nothing_beside_it(wheel):
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top.partition("-")[0] for top in tops} == {"lossbench"}
    assert len(tops) == 2  # the package, and what pip knows of it


@pytest.mark.long
def test_it_holds_every_module_and_data_file(wheel):
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    files |= {path for path in (ROOT / "lossbench").glob("*.*") if path.suffix in (".py", ".typed")}
    for package in PACKAGES:
        files |= {path for form in DATA for path in (ROOT / package).rglob(form)}
    names = {path.relative_to(ROOT).as_posix() for path in files if "results" not in path.parts}
    names -= UNREAD
    expected = {name if name.startswith("lossbench/") else f"lossbench/{name}" for name in names}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == expected


@pytest.mark.long
def test_commands_and_the_pytest_plugin_are_entry_points(wheel):
    (entries,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(entries).decode()
    assert "lossbench = lossbench.bench.interface.cli:main" in text
    assert "lossreport = lossbench.reports.cli:main" in text
    assert "[pytest11]\nlossbench = lossbench.bench.interface.pytest_plugin" in text
