"""``lossbench`` for tests: as a user runs it, or in this process where nothing is measured."""

import contextlib
import io
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

from lossbench.bench.interface.cli import main
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.reports.cli import main as report

CEILINGS = Ceilings({"float64": 1e6, "float32": 1e6, "bfloat16": 1e6}, [(1, 1e6)], 1.0)
"""Of a device that is faster than any: no time is below its floor."""
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


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Lines on stderr, but for those about a machine that is busy while tests run."""
    return [line for line in done.stderr.splitlines() if not line.startswith("the machine ")]


def call_lossbench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What ``lossbench`` prints and how it exits, without the seconds that a new process takes."""
    return call(main, "lossbench", arguments)


def call_lossreport(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The same of ``lossreport``."""
    return call(report, "lossreport", arguments)


def call(
    entry: Callable[[], None], program: str, arguments: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
        mock.patch.object(sys, "argv", [program, *arguments]),
    ):
        try:
            entry()
        except SystemExit as stop:
            code = stop.code
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def assert_one_line_error(result: subprocess.CompletedProcess[str], message: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.endswith("\n")
    lines = "\n".join(said(result))
    assert re.fullmatch(rf"lossbench: error: .*{message}.*", lines), result.stderr
