"""Tables from run files, and pages whose tables are generated in place.

A generated block of a page stands between two comments, the first of which says what it is:

    <!-- lossreport table efficiency results/nvidia-h200/efficiency.jsonl -->
    ...
    <!-- end -->

The other kinds are ``<!-- lossreport commands -->``, ``<!-- lossreport run-files -->`` and
``<!-- lossreport bounds FILE CAPABILITY -->``.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lossbench.losses import pick
from lossbench.reports import bounds, figures, functions, modules, reference, tables
from lossbench.reports.section import check_form, render

_BLOCK = re.compile(r"(<!-- lossreport (\S+)(.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def make_table(name: str, runs: Sequence[Path], form: str) -> str:
    """A table as text.

    Args:
        name: a module of ``reports.tables``, or several: a,b.
        runs: run files.
        form: one of ``FORMS``.

    Raises:
        ValueError: an unknown name, or a run file that is missing, damaged or of another suite.
    """
    return make_tables(name, runs, [form])[0]


def make_tables(
    name: str,
    runs: Sequence[Path],
    forms: Sequence[str],
    columns: Sequence[str] = (),
    **choices: str,
) -> list[str]:
    """``make_table`` in several forms; ``columns`` and ``choices`` as ``functions.table`` has."""
    names = [each.strip() for each in name.split(",")]
    if not all(names):
        raise ValueError(f"{name!r} names no table beside a comma; give several as a,b")
    for each in names:
        modules.load(tables, "table", each)
    for form in forms:
        check_form(form)  # before anything is read
    records = functions.load(runs)
    found = [functions.table(each, records, columns, **choices) for each in names]
    sections = [section for each in found for section in each]
    return [render(sections, form) for form in forms]


def make_figure(name: str, runs: Sequence[Path], out: Path, **choices: str) -> None:
    """Draw a figure into a file.

    The same run gives the same file, byte for byte, with the same matplotlib.

    Args:
        name: a module of ``reports.figures``.
        runs: run files.
        out: .svg, .png or .pdf.
        **choices: as ``functions.figure`` has them.

    Raises:
        ValueError: an unknown name or kind of file, or a run file that is missing, damaged or
            without what the figure shows.
    """
    if out.suffix not in (".svg", ".png", ".pdf"):
        raise ValueError(f"--out must end in .svg, .png or .pdf, got {out}")
    modules.load(figures, "figure", name)
    import matplotlib  # tables do without

    matplotlib.use("Agg")
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
    with matplotlib.rc_context(functions.STYLE):
        functions.figure(name, runs, **choices).savefig(out, dpi=200, metadata=dates[out.suffix])


def refresh(text: str, folder: Path) -> str:
    """A page with every generated block made anew; paths are relative to ``folder``.

    Raises:
        ValueError: a block of an unknown kind, or whose table cannot be made.
    """

    def fill(block: re.Match[str]) -> str:
        start, kind, arguments, end = block.groups()
        return f"{start}\n{_KINDS[pick('block', kind, _KINDS)](arguments.split(), folder)}\n{end}"

    return _BLOCK.sub(fill, text)


def _table(arguments: Sequence[str], folder: Path) -> str:
    if len(arguments) < 2:
        raise ValueError("a block is <!-- lossreport table NAME RUN... -->")
    name, *runs = arguments
    return make_table(name, [folder / run for run in runs], "markdown")


def _bounds(arguments: Sequence[str], folder: Path) -> str:
    if len(arguments) != 2:
        raise ValueError("a block is <!-- lossreport bounds FILE CAPABILITY -->")
    return bounds.table(folder / arguments[0], arguments[1])


_KINDS: dict[str, Callable[[Sequence[str], Path], str]] = {
    "table": _table,
    "bounds": _bounds,
    "commands": lambda *_: reference.commands(),
    "run-files": lambda *_: reference.run_files(),
}
