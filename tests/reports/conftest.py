"""Records of the efficiency suite: counts are real, times are made up."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lossbench.bench.cases.suites import suite
from lossbench.bench.counting.counting import count
from lossbench.bench.records.runfile import SCHEMA

ENVIRONMENT = {"cpu": "Test CPU", "threads": 2, "torch": "2.13.0"}
HEADER = {
    "schema": SCHEMA,
    "environment": ENVIRONMENT,
    "environment_hash": "e",
    "code_hash": "c",
    "git_commit": "0123456789abcdef",
    "git_dirty": False,
    "created": "2026-11-20T12:00:00Z",
}


@pytest.fixture(scope="session")
def records() -> list[dict]:
    """SMI takes 10 ms and 10 MB, every other loss 25 ms and 40 MB; each shape is one pair group."""
    made = []
    cases = [case for grid in suite("efficiency") for case in grid.cases()]
    for case in [*cases, *(replace(case, pass_="forward") for case in cases)]:
        smi = case.loss == "smi"
        time, peak = (10.0, 10_000_000) if smi else (25.0, 40_000_000)
        measured = {"median_ms": time, "p20_ms": time - 1, "p80_ms": time + 1, "peak_bytes": peak}
        measured["samples_ms"] = [time * factor for factor in (0.9, 1.0, 1.1, 1.0)]
        measured |= {"pair_group": f"{case.loss_batch} {case.pass_}", "pair_processes": 2}
        counts = {**case.describe(), **count(case)}
        key = f"k{len(made)}"
        made.append({"key": key, "status": "ok", "reason": "", **counts, **measured})
    return made


@pytest.fixture
def write_run(tmp_path):
    """A function that writes a run file and returns its path."""

    def write(records: list[dict], name: str = "run.jsonl", **header) -> Path:
        path = tmp_path / name
        lines = [json.dumps(content) for content in ({**HEADER, **header}, *records)]
        path.write_text("\n".join(lines) + "\n")
        return path

    return write
