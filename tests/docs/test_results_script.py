"""The script that makes committed runs: its commands exist, and what was edited makes none."""

import os
import shlex
import shutil
import subprocess

import pytest
from pages import ROOT
from test_pages import options

STEPS = ("efficiency", "fair", "implementations", "scaling", "third_parties", "predictions")
MORE = ("pretrain", "processes", "probe", "frontier", "noise", "figures")
PROGRAMS = ("lossbench", "lossreport", "torchrun")


@pytest.fixture
def call(tmp_path):
    """Run a copy of the script, in a repository of its own, with programs that only note words."""
    copy = tmp_path / "copy"
    shutil.copytree(
        ROOT / "reports/results", copy / "reports/results", ignore=shutil.ignore_patterns("amd*")
    )
    for room in ("bench", "kernels", "losses"):
        (copy / room).mkdir()
        (copy / room / "code.py").write_text("1\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(copy)]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    log = tmp_path / "log"
    for program in PROGRAMS:
        path = tmp_path / program
        path.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "{program} $(printf "\'%s\' " "$@")" >> {log}\n'
        )
        path.chmod(0o755)

    def run(*steps):
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        environment["OUT"] = str(tmp_path / "out")
        script = copy / "reports/results/make.sh"
        done = subprocess.run(
            ["sh", str(script), *steps], env=environment, capture_output=True, text=True
        )
        return done, log.read_text().splitlines() if log.exists() else []

    run.folder = copy
    return run


def test_all_steps_in_their_order(call):
    done, called = call()
    assert done.returncode == 0, done.stderr
    begun = [line.removeprefix("== ") for line in done.stdout.splitlines()]
    assert begun == [*STEPS, *MORE]
    assert sum(line.startswith("torchrun") for line in called) == 7


def test_its_commands_and_options_exist(call):
    _, called = call()
    for line in called:
        program, *words = shlex.split(line)
        if program == "torchrun":
            module = words.index("lossbench")
            program, words = "lossbench", words[module + 1 :]
        command, *words = words
        assert {w for w in words if w.startswith("--")} <= options(program)[command], line


def test_code_that_was_edited_makes_no_runs(call):
    (call.folder / "bench" / "more.py").write_text("2\n")
    done, called = call("efficiency")
    assert (done.returncode, called) == (2, [])
    assert done.stderr.startswith("make.sh: error: files were edited: commit them first")


def test_an_unknown_step_is_refused(call):
    done, called = call("efficiency", "nosie")
    assert done.returncode == 2
    assert "make.sh: error: no step nosie: efficiency fair " in done.stderr
    assert called == []


def test_runs_are_kept_beside_the_code(call, tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("a.jsonl", "a.1.jsonl", "scaling-1.jsonl"):
        (tmp_path / "out" / name).write_text("content")
    done, called = call("keep", "some-machine")
    assert done.returncode == 0, done.stderr
    kept = call.folder / "reports/results/some-machine"
    assert sorted(path.name for path in kept.iterdir()) == ["a.jsonl", "scaling-1.jsonl"]
    assert called[0].startswith("lossreport 'page'")
    done, _ = call("keep")
    assert done.returncode == 2
    assert "keep needs the name of a folder" in done.stderr
