"""``lossreport``: reads records. Nothing imports this module."""

from pathlib import Path
from typing import Annotated

import typer

from bench.console import FAILED, OK, make_app, run_app, say

app = make_app("Tables and pages from run files.", failure="a page is stale")
TABLE_HELP = "efficiency, fair, implementations, kernels, third_parties."
Runs = Annotated[list[Path], typer.Argument(metavar="RUN", help="Run files.")]


@app.callback()
def lossreport() -> None:
    """Make a group of the commands, however few there are."""


@app.command()
def table(
    name: Annotated[str, typer.Argument(metavar="TABLE", help=TABLE_HELP)],
    runs: Runs,
    form: Annotated[
        str, typer.Option("--format", help="terminal, markdown, csv or latex.")
    ] = "terminal",
    out: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
) -> int:
    """Print a table of one or more runs."""
    from reports.page import make_table

    text = make_table(name, runs, form)
    if out is None:
        print(text, end="")
    else:
        out.write_text(text)
        say(f"wrote {out}")
    return OK


@app.command()
def figure(
    name: Annotated[str, typer.Argument(metavar="FIGURE", help="Which figure: crossover.")],
    runs: Runs,
    out: Annotated[Path | None, typer.Option(help="File to draw [FIGURE.svg].")] = None,
) -> int:
    """Draw a figure of one or more runs."""
    from reports.page import make_figure

    path = out or Path(f"{name}.svg")
    make_figure(name, runs, path)
    say(f"wrote {path}")
    return OK


@app.command()
def page(
    pages: Annotated[list[Path], typer.Argument(metavar="PAGE", help="Markdown files.")],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail if a page is stale.")
    ] = False,
) -> int:
    """Fill the generated blocks of a page from their committed runs."""
    from reports.page import refresh

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


if __name__ == "__main__":
    main()
