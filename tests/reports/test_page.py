"""Pages: generated blocks are filled in place, and the committed ones are fresh."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lossbench.reports.page import make_table, refresh

ROOT = Path(__file__).parents[2]
FOLDERS = ("*.md", "docs/**/*.md", "kernels/*.md", "reports/**/*.md")
PAGES = [
    path
    for folder in FOLDERS
    for path in ROOT.glob(folder)
    if "<!-- lossreport" in path.read_text()
]


def lossreport(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lossbench.reports", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_readme_has_a_generated_table():
    assert ROOT / "README.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_committed_pages_match_their_runs(page):
    assert refresh(page.read_text(), page.parent) == page.read_text()


def test_blocks_are_filled_and_the_rest_is_kept(records, write_run):
    run = write_run(records)
    page = "before\n<!-- lossreport table efficiency run.jsonl -->\nstale\n<!-- end -->\nafter\n"
    filled = refresh(page, run.parent)
    assert filled.startswith("before\n<!-- lossreport table efficiency run.jsonl -->\n")
    assert filled.endswith("<!-- end -->\nafter\n")
    assert make_table("efficiency", [run], "markdown") in filled
    assert "stale" not in filled
    assert refresh(filled, run.parent) == filled


def test_check_fails_on_a_stale_page_and_changes_nothing(records, write_run):
    run = write_run(records)
    page = run.parent / "page.md"
    stale = "<!-- lossreport table efficiency run.jsonl -->\nold\n<!-- end -->\n"
    page.write_text(stale)
    result = lossreport("page", str(page), "--check")
    assert (result.returncode, page.read_text()) == (1, stale)
    assert "is stale; run lossreport page" in result.stderr
    assert lossreport("page", str(page)).returncode == 0
    assert lossreport("page", str(page), "--check").returncode == 0


def test_a_table_is_written_in_the_forms_that_names_of_files_ask_for(records, write_run):
    run = write_run(records)
    forms = {
        "a.md": "markdown",
        "b.csv": "csv",
        "c.tex": "latex",
        "d.json": "json",
        "e": "terminal",
    }
    places = [run.parent / name for name in forms]
    outs = [argument for path in places for argument in ("--out", str(path))]
    done = lossreport("table", "efficiency", str(run), *outs)
    assert (done.returncode, done.stdout) == (0, "")
    for path, form in zip(places, forms.values(), strict=True):
        assert path.read_text() == make_table("efficiency", [run], form)
    lossreport("table", "efficiency", str(run), *outs[:2], "--format", "csv")
    assert places[0].read_text() == places[1].read_text()


def test_several_tables_are_one_file_and_a_dash_is_the_terminal(records, write_run):
    run = write_run(records)
    path = run.parent / "both.md"
    done = lossreport("table", "efficiency,fair", str(run), "--out", "-", "--out", str(path))
    each = [make_table(name, [run], "terminal") for name in ("efficiency", "fair")]
    assert (done.returncode, done.stdout) == (0, "\n".join(each))
    each = [make_table(name, [run], "markdown") for name in ("efficiency", "fair")]
    assert path.read_text() == "\n".join(each)


def test_a_comparison_is_written_to_the_terminal_too(records, write_run, tmp_path):
    run = write_run(records)
    plain, dash = (lossreport("compare", str(run), str(run), *o) for o in ((), ("--out", "-")))
    assert plain.stdout == dash.stdout != ""


def test_a_table_is_not_written_over_what_is_read_by_any_of_its_names(records, write_run):
    run = write_run(records)
    before, other = run.read_bytes(), run.parent / "a.md"
    done = lossreport("table", "efficiency", str(run), "--out", str(other), "--out", str(run))
    assert done.returncode == 2
    assert "is a file that is read" in done.stderr
    assert (run.read_bytes(), other.exists()) == (before, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table", "efficiency,", "x"], "'efficiency,' names no table beside a comma"),
        (["table", "eficiency", "x"], "unknown table 'eficiency'; did you mean 'efficiency'"),
        (["table", "efficiency", "none.jsonl"], "none.jsonl cannot be read: No such file"),
        (["table", "efficiency", "RUN", "--format", "html"], "unknown format 'html'.*latex"),
        (["table", "efficiency"], "Missing argument"),
        (["table", "efficiency", "RUN", "--out", "/proc/x/y.md"], "No such file or directory"),
        (["page", "none.md"], "No such file or directory"),
    ],
)
def test_bad_input_is_one_line(arguments, message, records, write_run):
    run = str(write_run(records))
    result = lossreport(*[run if argument == "RUN" else argument for argument in arguments])
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("lossreport: error: ")
    assert re.search(message, result.stderr), result.stderr


def test_a_corrupt_line_is_named(records, write_run):
    run = write_run(records)
    run.write_text(run.read_text().replace('"status": "ok"', '"status": "fine"', 1))
    result = lossreport("table", "efficiency", str(run))
    assert result.returncode == 2
    assert f"{run}:2: unknown status 'fine'" in result.stderr
