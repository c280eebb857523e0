"""A fresh environment with the wheel installed, and nothing of this folder."""

import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The folder of programs of an environment with the wheel, beside what it needs."""
    folder = tmp_path_factory.mktemp("installed")
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "runs", "__pycache__")
    copy = shutil.copytree(ROOT, folder / "copy", symlinks=True, ignore=ignored)
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(copy)]
    _pip(sys.executable, *wheel)
    shutil.rmtree(copy)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    _pip(python, "install", "--no-deps", *map(str, folder.glob("*.whl")))
    # what it needs is here already: its folder is looked in after the environment's own, and what
    # stands there of an editable lossbench is not followed
    (own,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (own / "needed.pth").write_text("\n".join(site.getsitepackages()))
    return python.parent


def _pip(python, *arguments):
    done = subprocess.run([python, "-m", "pip", "-q", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def shell(installed, tmp_path):
    """Run commands as a user does, in an empty folder; at most five."""
    run: list[str] = []

    def call(command: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        run.append(command)
        assert len(run) <= 5
        path = f"{installed}{os.pathsep}{os.environ['PATH']}"
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CI")}
        kept = {k: v for k, v in kept.items() if "XDIST" not in k}  # tests run by themselves
        env = {**kept, "PATH": path, **environment}
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    call.folder = tmp_path
    return call
