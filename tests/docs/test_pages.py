"""Pages: links lead somewhere, commands exist and run, Python blocks run; README is short."""

import re
import shutil
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from command_line import call_lossbench, call_lossreport
from pages import LINKED, PAGES, ROOT, Command, anchors, blocks, commands, links, name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RESULTS = ROOT / "reports/results/amd-epyc-2-cores"
OTHER_NAMES = {
    **dict.fromkeys(("old", "new", "mine"), "implementations"),
    **{"run": "efficiency", "one": "scaling-1", "two": "scaling-2", "four": "scaling-4"},
}
"""Runs of pages -> committed runs that stand for them."""
COMMANDS = list({command.words: command for page in PAGES for command in commands(page)}.values())
OURS = [command for command in COMMANDS if command.words[0] in ("lossbench", "lossreport")]
HERE = [command for command in OURS if not command.needs]
SHELL = ("sh", "cd", "export", "for", "git", "do", "done", "-m", "--out", "--evaluate")
QUICK = ("count", "predict", "table", "figure", "page", "compare")


def is_quick(command: Command) -> bool:
    """Whether a command takes a few seconds at most."""
    asks_the_compiler = command.words[1] == "predict" and "--gpu" not in command.words
    return command.words[1] in QUICK and not asks_the_compiler


SKIPPED = {("lossbench", "audit"), ("lossbench", "noise"), ("lossbench", "calibrate")}
"""Minutes, or seconds of a whole machine; tested by themselves."""


def test_the_readme_fits():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= 12_000
    assert len(text.splitlines()) <= 200


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{name(page)} links to {link}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(compile(block, name(page), "exec"), space)


@pytest.mark.parametrize("command", OURS, ids=str)
def test_commands_and_options_exist(command):
    program, *words = command.words
    known = options(program)
    if words[0].startswith("-"):
        assert words[0] in ("--help", "--version")
        return
    assert words[0] in known, f"no command {program} {words[0]}"
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert flags <= known[words[0]] | {"--debug", "--help"}


def options(program: str) -> dict[str, set[str]]:
    """Commands of a program, and the options of each."""
    import typer

    from lossbench.bench.interface.cli import app as bench
    from lossbench.reports.cli import app as reports

    group = typer.main.get_command({"lossbench": bench, "lossreport": reports}[program])
    return {
        key: {flag for each in command.params for flag in each.opts}
        for key, command in group.commands.items()
    }


@pytest.mark.parametrize("command", [c for c in HERE if is_quick(c)], ids=str)
def test_quick_commands_run(command, tmp_path, monkeypatch):
    run(command, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("command", [c for c in HERE if not is_quick(c)], ids=str)
def test_commands_that_measure_run(command, tmp_path, monkeypatch):
    run(command, tmp_path, monkeypatch)


def run(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command as it stands, on tiny shapes."""
    if command.words[:2] in SKIPPED:
        return
    monkeypatch.chdir(folder)
    with_runs(folder)
    program, *words = [word.replace("reports/results/*/", f"{RESULTS}/") for word in command.words]
    words = [str(path) for word in words for path in expanded(word)]
    if program == "lossreport":
        done = call_lossreport(*words)
    else:
        done = call_lossbench(*words, *tiny(words, folder))
    assert done.returncode == 0, done.stderr


def expanded(word: str) -> list[Path | str]:
    """What a shell makes of a word."""
    if "*" not in word:
        return [word]
    path = Path(word)
    return sorted(path.parent.glob(path.name)) or [word]


def tiny(words: list[str], folder: Path) -> list[str]:
    """Options that come after those of a page, and make its work small."""
    kind = words[0]
    if "--dry-run" in words:  # walks the code of a GPU that is not here, whatever the shapes
        return []
    small = ["--batch", "8", "--device", "cpu"]
    if kind == "pretrain":
        steps = "9" if "--paired" in words else "6"
        small += ["--set", "projector=32,16", "--steps", steps, "--epochs", "1"]
        small += ["--data", "digits", "--set", "image_size=8", "--set", "encoder=resnet18"]
        if "list" in words:
            return []
    elif kind in ("run", "noise"):
        small += ["--dim", "16"]
        if not {"--loss", "distributed"} & set(words):  # not every loss has every form
            small += ["--loss", "smi"]
    if kind == "predict":
        small = [] if "--gpu" in words or "--gpu-spec" in words else small
    if kind in ("run", "pretrain"):
        small += ["--out", str(folder / "tiny.jsonl")]
    return small if kind in ("run", "pretrain", "predict", "noise") else []


def with_runs(folder: Path) -> None:
    """Put run files where pages say that they are."""
    (folder / "runs").mkdir()
    for path in RESULTS.glob("*.jsonl"):
        shutil.copy(path, folder / "runs")
    for other, committed in OTHER_NAMES.items():
        shutil.copy(RESULTS / f"{committed}.jsonl", folder / "runs" / f"{other}.jsonl")
    for page in ("README.md", "docs"):
        (folder / page).symlink_to(ROOT / page)
    (folder / "reports").symlink_to(ROOT / "reports")


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in OURS], ids=str)
def test_other_commands_name_what_exists(command):
    program, *words = command.words
    if program == "tox":
        environments = ConfigParser()
        environments.read(ROOT / "tox.ini")
        assert f"testenv:{words[words.index('-e') + 1]}" in environments
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for word in words:
            for extra in re.findall(r"\[([\w,]+)\]", word):
                assert set(extra.split(",")) <= set(project["optional-dependencies"])
    elif program in ("python", "torchrun"):
        module = words[words.index("-m") + 1]
        assert module in ("lossbench", "lossbench.reports")
        assert program == "python" or command.needs == "a cluster"
    else:
        assert program in ("pytest", *SHELL) or "=" in program, f"what is {program}?"
