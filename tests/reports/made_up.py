"""Made-up records, and ``lossreport`` in this process."""

import contextlib
import io
import subprocess
import sys
import warnings
from unittest import mock

from lossbench.reports.cli import main


def case(key: str, implementation: str = "reference", **fields) -> dict:
    """A case that failed, unless ``measured`` is added."""
    shape = {"batch": 8, "dim": 16, "dtype": "float32", "world": 1, "distribution": "local"}
    way = {"loss": "smi", "implementation": implementation, "pass": "step", "inputs": "random"}
    settings = {"variant": "", "options": "", "contender": "", "loss_batch": 8, "evaluations": 1}
    said = {"status": "oom", "reason": "2 GB more did not fit in memory", "title": "SMI"}
    return {"key": key, **said, **way, **shape, **settings, **fields}


def measured(ms: float, **fields) -> dict:
    """What a quiet machine measures, in two processes."""
    return {
        **{"status": "ok", "reason": "", "peak_bytes": 1_000_000, "macs": 10, "gmacs": 1e-8},
        **{"median_ms": ms, "p20_ms": ms, "p80_ms": ms, "pair_group": "g", "pair_processes": 2},
        **{"samples_ms": [0.999 * ms, ms, 1.001 * ms, ms]},
        **{"gradient_error": 1e-7, "saved_bytes": None},
        **{f"accuracy_random_{what}_error": 1e-7 for what in ("value", "gradient")},
        **fields,
    }


def lossreport(*arguments: object) -> subprocess.CompletedProcess[str]:
    """What ``lossreport`` prints and how it exits, without the seconds that a process takes."""
    out, err = io.StringIO(), io.StringIO()
    code = None
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
        mock.patch.object(sys, "argv", ["lossreport", *map(str, arguments)]),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
