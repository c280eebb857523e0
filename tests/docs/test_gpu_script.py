"""The script of docs/gpu.md: its commands exist; a step that fails keeps no other away."""

import os
import shlex
import subprocess

import pytest
from pages import ROOT
from test_pages import options

SCRIPT = ROOT / "docs/gpu.sh"
STEPS = ("versions", "check", "headline", "tables", "pack")


def call(folder, *steps, fails=""):
    """Run the script with a Python that writes down what it is called with."""
    python = folder / "python"
    log = folder / "log"
    python.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\ncase "$*" in {fails or "nothing"}) exit 1;; esac\n'
    )
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "OUT": str(folder / "out")}
    done = subprocess.run(
        ["sh", str(SCRIPT), *steps], env=environment, capture_output=True, text=True
    )
    return done, log.read_text().splitlines() if log.exists() else []


def test_all_steps_in_their_order(tmp_path):
    done, called = call(tmp_path)
    assert done.returncode == 0, done.stderr
    begun = [line.removeprefix("== ") for line in done.stdout.splitlines() if line[:3] == "== "]
    assert begun == list(STEPS)
    suites = [line.split("--suite ")[1].split()[0] for line in called if "--suite" in line]
    assert suites == ["gpu-check", "gpu-headline"]
    assert (tmp_path / "out.tar.gz").exists()


def test_a_step_that_fails_is_said_and_the_others_are_done(tmp_path):
    done, called = call(tmp_path, "check", "rest", fails="*gpu-check*")
    assert done.returncode == 1
    assert "== check failed" in done.stdout
    assert "--suite gpu " in called[-1]


def test_an_unknown_step_is_refused(tmp_path):
    done, called = call(tmp_path, "chekc")
    assert done.returncode == 2
    assert done.stderr.startswith("gpu.sh: error: no step chekc: ")
    assert called == []


def test_its_commands_and_options_exist(tmp_path):
    _, called = call(tmp_path, *STEPS, "rest")
    programs = {"lossbench": "lossbench", "lossbench.reports": "lossreport"}
    ours = [shlex.split(line) for line in called if line.startswith("-m lossbench")]
    assert len(ours) == 5
    for _, module, command, *words in ours:
        known = options(programs[module])
        assert {word for word in words if word.startswith("--")} <= known[command]


@pytest.mark.parametrize("step", ["check", "headline", "rest"])
def test_no_step_takes_ten_minutes(tmp_path, step):
    from lossbench.bench.interface.parsing import parse_seconds

    _, called = call(tmp_path, step)
    words = called[0].split()
    assert parse_seconds(words[words.index("--budget") + 1]) <= 8 * 60
