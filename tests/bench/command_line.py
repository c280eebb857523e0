"""``lossbench`` for tests: as a user runs it, or in this process where nothing is measured."""

import contextlib
import io
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

from lossbench.bench.interface.cli import main

QUIET = {name: value for name, value in os.environ.items() if name != "CI"}
ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
"""Where ``third_party`` is found, as a user's own module is."""


def run_alone(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command that does not know that it is run by one of several processes of tests."""
    env = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def lossbench(*arguments: str, env=QUIET, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lossbench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, **options)


def call_lossbench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What ``lossbench`` prints and how it exits, without the seconds that a new process takes."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
        mock.patch.object(sys, "argv", ["lossbench", *arguments]),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def assert_one_line_error(result: subprocess.CompletedProcess[str], message: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert re.fullmatch(rf"lossbench: error: .*{message}.*\n", result.stderr), result.stderr
