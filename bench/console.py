"""What the command lines share: one-line errors, exit status, durations. Imports no torch."""

import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from bench.runfile import RunFileWarning

LEAST_BYTES = 10**8
"""Of a device that anything runs on."""
OK, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130
_UsageError: Any = typer.BadParameter.__base__


def make_app(help_: str, failure: str) -> typer.Typer:
    """A Typer app of the project's kind.

    Args:
        help_: what the command line is for.
        failure: what exit status 1 stands for.
    """
    statuses = f"Exit status: 0 done, 1 {failure}, 2 bad usage."
    return typer.Typer(
        help=help_,
        epilog=f"{statuses} Add --debug for a traceback.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )


def run_app(app: typer.Typer, name: str) -> None:
    """Run a Typer app and exit: 0 done, 1 a case or gate failed, 2 bad usage.

    Errors are one line on stderr; ``--debug`` anywhere on the line shows the traceback instead.
    """
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"] or ["--help"]
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", RunFileWarning)
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
    return f"{type(error).__name__}: {error} (a bug: please report it with --debug)", FAILED


def say(line: str) -> None:
    """Print a line on stderr, where it cannot get mixed with results."""
    print(line, file=sys.stderr)


def show(
    records: list[dict[str, Any]], as_json: bool, table: Callable[[list[dict[str, Any]]], None]
) -> None:
    """Print records, as JSON or as a table."""
    if as_json:
        print(json.dumps(records, indent=1))
    else:
        table(records)


@contextmanager
def silenced() -> Iterator[None]:
    """Drop what libraries and new processes write to stderr."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def parse_seconds(text: str) -> float:
    """Seconds of a duration such as ``90``, ``90s``, ``3m`` or ``1h30m``.

    Raises:
        ValueError: not a duration above zero.
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if match is None or not any(float(part or 0) for part in match.groups()):
        raise ValueError(f"a duration is written 90s, 3m or 1h30m, got {text!r}")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def parse_list(flag: str, text: str) -> list[str]:
    """The parts of a comma-separated list.

    Raises:
        ValueError: one of them is empty.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError(f"{flag}: a list is written a,b,c without gaps, got {text!r}")
    return parts


def parse_bytes(text: str) -> int:
    """Bytes of a size such as ``24GB`` (10^9) or ``500MB``.

    Raises:
        ValueError: not a size above zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(MB|GB)", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"a size is written 24GB or 500MB, got {text!r}")
    size = int(float(match[1]) * {"MB": 1e6, "GB": 1e9}[match[2].upper()])
    if not LEAST_BYTES <= size < 2**62:
        raise ValueError(f"a device has 100 MB or more, got {text!r}")
    return size
