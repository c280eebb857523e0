"""What the command lines share: one-line errors, exit status, what is said. Imports no torch."""

import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import lossbench
from lossbench.bench.records.runfile import RunFileWarning

OK, FAILED, BAD_USAGE, BUSY, INTERRUPTED = 0, 1, 2, 3, 130
COLUMNS = 80
_UsageError: Any = typer.BadParameter.__base__


def make_app(help_: str, failure: str, doubt: str = "") -> typer.Typer:
    """A Typer app of the project's kind.

    Args:
        help_: what the command line is for.
        failure: what exit status 1 stands for.
        doubt: what exit status 3 stands for, if there is one.
    """
    statuses = f"Exit status: 0 done, 1 {failure}, 2 bad usage{f', 3 {doubt}' if doubt else ''}."
    app = typer.Typer(
        help=help_,
        epilog=f"{statuses} Add --debug for a traceback.",
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    app.callback()(_of_all_commands)  # a group of commands, however few there are
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lossbench {lossbench.__version__}")
        raise typer.Exit


def _of_all_commands(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    pass


def examples(*commands: str) -> str:
    """The end of a command's help: what to type."""
    return "\n\n".join(["Examples:", *commands])


def run_app(app: typer.Typer, name: str) -> None:
    """Run a Typer app and exit: 0 done, 1 a case or gate failed, 2 bad usage.

    Errors are one line on stderr; ``--debug`` anywhere on the line shows the traceback instead.
    """
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"] or ["--help"]
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", RunFileWarning)
    warnings.filterwarnings("always", message="plugin ")  # its kind is known to torch's side alone
    warnings.showwarning = lambda message, *_: say(f"{name}: warning: {message}")
    try:
        status = app(arguments, prog_name=name, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = OK
    except Exception as error:
        if debug:
            raise
        message, status = _explain(error)
        say(f"{name}: error: {' '.join(message.split())}")
    if status == INTERRUPTED:  # Typer returns it itself, older ones raise Abort
        say(f"{name}: interrupted; run the same command again to resume")
    sys.exit(status)


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, _UsageError):
        return error.format_message(), BAD_USAGE
    if isinstance(error, (ValueError, OSError)):
        return str(error), BAD_USAGE
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed; see Install in docs/gpu.md", BAD_USAGE
    return f"{type(error).__name__}: {error} (a bug: please report it with --debug)", FAILED


def shows_bars() -> bool:
    """Whether progress is a bar: on a terminal."""
    return sys.stderr.isatty()


def prints_lines() -> bool:
    """Whether progress is plain lines: in CI, and in a notebook; there is none on a pipe."""
    return not shows_bars() and (bool(os.environ.get("CI")) or "ipykernel" in sys.modules)


def say(line: str) -> None:
    """Print a line on stderr, where it cannot get mixed with results."""
    print(line, file=sys.stderr)


def show_next(table: str, out: Path) -> None:
    """Print the command that shows more of a run: in 80 columns, as far as its path allows."""
    command = f"next: lossreport table {table}"
    gap = " " if len(f"{command} {out}") <= COLUMNS else " \\\n    "
    print(f"{command}{gap}{out}")


def show(
    records: list[dict[str, Any]], as_json: bool, table: Callable[[list[dict[str, Any]]], None]
) -> None:
    """Print records, as JSON or as a table."""
    if as_json:
        print(json.dumps(records, indent=1))
    else:
        table(records)
