"""``lossreport``: reads records. Nothing imports this module, but what documents it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lossbench.bench.interface.console import BUSY, FAILED, OK, examples, make_app, run_app, say
from lossbench.reports import figures, modules, tables

app = make_app(
    "Tables and pages from run files.",
    failure="a page is stale or --fail-on found something",
    doubt="--fail-on slower found something only where a machine was busy",
)
TABLE_HELP = f"{', '.join(modules.names(tables))}; or several: a,b."
FIGURE_HELP = f"{', '.join(modules.names(figures))}."
FORMAT_HELP = "terminal, markdown, csv, json or latex; default: as the file's name ends."
COLUMNS_HELP = "Columns to show, by their headers or their names in CSV: a,b (default: all)."
AXES_HELP = "loss, implementation, batch, dim, pass, dtype"
COMPARED_HELP = f"{FORMAT_HELP[:-1]}; github for a pull request."
TERMINAL = Path("-")
Runs = Annotated[list[Path], typer.Argument(metavar="RUN", help="Run files.")]
Form = Annotated[str, typer.Option("--format", help=FORMAT_HELP)]
Out = Annotated[Path, typer.Option(help="Write to this file, - is the terminal.")]
OUTS_HELP = "Write to this file, - is the terminal. May be given again."
Outs = Annotated[list[Path] | None, typer.Option(help=OUTS_HELP)]


@app.command(
    epilog=examples(
        "lossreport table efficiency runs/efficiency.jsonl",
        "lossreport table implementations runs/mine.jsonl --out mine.tex --out mine.csv",
        "lossreport table grid runs/mine.jsonl --rows loss,dim --across batch --value ratio",
    )
)
def table(
    name: Annotated[str, typer.Argument(metavar="TABLE", help=TABLE_HELP)],
    runs: Runs,
    columns: Annotated[str, typer.Option(help=COLUMNS_HELP)] = "",
    rows: Annotated[str, typer.Option(help=f"Of grid: what rows are: {AXES_HELP}.")] = "",
    across: Annotated[str, typer.Option(help="Of grid: what columns are, likewise.")] = "",
    value: Annotated[str, typer.Option(help="Of grid: ms, ratio, mb, gmacs, ...")] = "",
    form: Form = "",
    out: Outs = None,
) -> int:
    """Print tables of one or more runs."""
    from lossbench.bench.interface.parsing import parse_list
    from lossbench.reports.page import make_tables
    from lossbench.reports.section import form_of

    places = out or [TERMINAL]
    for path in places:
        _keep_apart(path, runs)
    forms = [form or form_of(path) for path in places]
    wanted = parse_list("--columns", columns or None)
    choices = _given(rows=rows, across=across, value=value)
    texts = make_tables(name, runs, forms, wanted, **choices)
    for path, text in zip(places, texts, strict=True):
        _print(text, path)
    return OK


@app.command(
    epilog=examples(
        "lossreport compare runs/old.jsonl runs/new.jsonl --fail-on slower,bigger,wrong",
    )
)
def compare(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The run to compare with, A.")],
    new: Annotated[list[Path], typer.Argument(metavar="NEW", help="Other runs: B, C, ...")],
    fail_on: Annotated[
        str,
        typer.Option(help="Exit with 1 on any of slower, bigger, wrong (a,b,...), or unchecked."),
    ] = "",
    form: Annotated[str, typer.Option("--format", help=COMPARED_HELP)] = "",
    out: Out = TERMINAL,
) -> int:
    """Compare runs case by case: time, memory, fraction of ceiling, accuracy.

    A run is a run file, the JSON of pytest --benchmark-json, or a CSV with columns loss,
    implementation, batch, dim, dtype, pass and ms, one line a sample. Times are medians of separate
    runs. SLOWER and FASTER are said only of differences that are larger than sessions of the same
    code differ by.
    """
    from lossbench.reports.compare import open_sides, pair, parse_gates
    from lossbench.reports.pull_request import FORM, render_comment
    from lossbench.reports.section import check_form, form_of, render
    from lossbench.reports.side_by_side import build, doubts, failures

    form = form or form_of(out)
    if form != FORM:
        check_form(form)
    gates = parse_gates(fail_on)
    _keep_apart(out, [base, *new])
    sides = open_sides([base, *new])
    found = [pair(sides[0], side) for side in sides[1:]]
    failed, doubted = failures(sides, found, gates), doubts(sides, found, gates)
    sections = build(sides, found)
    if form == FORM:
        _print(render_comment(sides, found, sections, [*failed, *doubted]), out)
    else:
        _print(render(sections, form), out)
    for line in [*failed, *doubted]:
        say(f"lossreport: {line}")
    return FAILED if failed else BUSY if doubted else OK


def _given(**choices: str) -> dict[str, str]:
    return {name: choice for name, choice in choices.items() if choice}


def _keep_apart(out: Path, runs: Sequence[Path]) -> None:
    """What is read is not written over, by whatever path."""
    for run in runs:
        if out.exists() and run.exists() and out.samefile(run):
            raise ValueError(f"--out {out} is a file that is read: {run}; choose another --out")


def _print(text: str, out: Path) -> None:
    if out == TERMINAL:
        print(text, end="")
    else:
        out.write_text(text)
        say(f"wrote {out}")


@app.command(epilog=examples("lossreport figure scaling runs/scaling.jsonl --out scaling.png"))
def figure(
    name: Annotated[str, typer.Argument(metavar="FIGURE", help=FIGURE_HELP)],
    runs: Runs,
    against: Annotated[
        str, typer.Option(help="Of versus: batch, dim or memory; default: what varies most.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="File to draw [FIGURE.svg].")] = None,
) -> int:
    """Draw a figure of one or more runs."""
    from lossbench.reports.page import make_figure

    path = out or Path(f"{name}.svg")
    _keep_apart(path, runs)
    make_figure(name, runs, path, **_given(against=against))
    say(f"wrote {path}")
    return OK


@app.command(epilog=examples("lossreport page --check README.md docs/*.md"))
def page(
    pages: Annotated[list[Path], typer.Argument(metavar="PAGE", help="Markdown files.")],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail if a page is stale.")
    ] = False,
) -> int:
    """Fill the generated blocks of a page from their committed runs."""
    from lossbench.reports.page import refresh

    status = OK
    for path in pages:
        old = path.read_text()
        new = refresh(old, path.parent)
        if new == old:
            continue
        if check:
            say(f"{path} is stale; run lossreport page {path}")
            status = FAILED
        else:
            path.write_text(new)
            say(f"wrote {path}")
    return status


def main() -> None:
    """Entry point of ``lossreport``."""
    run_app(app, "lossreport")
