"""What ``lossreport`` does, on records: for the command line and for Python alike."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lossbench.reports import figures, modules, tables
from lossbench.reports.compare import open_sides, pair
from lossbench.reports.records import load as load_files
from lossbench.reports.section import Section, Sections
from lossbench.reports.side_by_side import build

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Paths = str | Path | Iterable[str | Path]
Records = pd.DataFrame | Paths
Run = pd.DataFrame | str | Path
NEEDED = (
    *("key", "machine", "hardware", "setting", "status", "reason", "variant", "samples_ms"),
    *("loss", "implementation", "batch", "dim", "world", "distribution", "loss_batch", "gmacs"),
)
"""Columns of records that were loaded, which counts and predictions have not."""
STYLE = {"svg.hashsalt": "lossbench", "svg.fonttype": "none"}


def load(paths: Paths) -> pd.DataFrame:
    """Records of run files, or of what other tools wrote, one row each.

    Args:
        paths: a run file, or several: JSON of ``pytest --benchmark-json``, or CSV with columns
            loss, implementation, batch, dim, dtype, pass and ms, are run files too.

    Returns:
        A column for each field of docs/run-files.md; ``hardware``, and ``machine``, which adds the
        software and the code; ``calibration``, the ceilings of that machine if they are known; and
        ``created``, when the run was begun. A record that several files hold is there once.

    Raises:
        RunFileError: a file that is missing or damaged.
        ValueError: no file holds a record.
    """
    files = _paths(paths)
    if not files:
        raise ValueError("no run file was given")
    return load_files(files)


def table(name: str, records: Records, columns: Iterable[str] = (), **choices: str) -> Sections:
    """A table of records.

    Args:
        name: one of those that ``lossreport table --help`` lists, such as "implementations".
        records: what ``run``, ``pretrain`` or ``load`` returned, or run files.
        columns: of those that it has, by their headers or their names in ``csv()``; default: all.
        **choices: of tables that can be shown in several ways: ``rows``, ``across`` and ``value``
            of "grid".

    Returns:
        Its sections, which show themselves in a notebook; ``markdown()``, ``latex()``, ``csv()``,
        ``json()`` and ``text()`` are strings.

    Raises:
        ValueError: an unknown name, column or choice, or records that are not of what the table
            shows.
    """
    build = modules.load(tables, "table", name).build
    _check_choices(f"table {name}", build, choices)
    sections = build(_frame(records), **choices)
    wanted = [columns] if isinstance(columns, str) else list(columns)
    return Sections(_select(name, sections, wanted) if wanted else sections)


def _select(table: str, sections: Sequence[Section], names: Sequence[str]) -> list[Section]:
    """Sections that have any of these columns, with them alone."""
    known = {
        text
        for section in sections
        for name, column in section.columns.items()
        for text in (name, column.header)
    }
    for name in names:
        modules.pick(f"column of table {table}", name, known)
    chosen = [section.select(names) for section in sections]
    return [section for section in chosen if section.columns]


def _check_choices(what: str, function: Any, choices: Mapping[str, str]) -> None:
    parameters = inspect.signature(function).parameters.values()
    known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    for choice in choices:
        if not known:
            raise ValueError(f"{what} is shown in one way: leave {choice} out")
        modules.pick(f"choice of {what}", choice, known)


def figure(name: str, records: Records, **choices: str) -> "Figure":
    """A figure of records.

    Args:
        name: one of those that ``lossreport figure --help`` lists, such as "scaling".
        records: as ``table`` takes them; the figure "compare" takes two run files or more.
        **choices: of figures that can be drawn in several ways: ``against`` of "versus".

    Raises:
        ValueError: an unknown name or choice, or records that are not of what the figure shows.
    """
    module = modules.load(figures, "figure", name)
    _check_choices(f"figure {name}", module.draw, choices)
    if not hasattr(module, "read"):
        frame = _frame(records)
    elif isinstance(records, pd.DataFrame):
        raise ValueError(f"figure {name} keeps runs apart: give their files, not records")
    else:
        frame = module.read(_paths(records))
    import matplotlib
    from matplotlib import pyplot

    with matplotlib.rc_context(STYLE):
        drawn: Figure = module.draw(frame, **choices)
    pyplot.close(drawn)  # it is the caller's: a notebook would show it twice, and keep it for ever
    return drawn


def compare(base: Run, *new: Run) -> Sections:
    """Runs against a first run, case by case: time, memory, fraction of ceiling, accuracy.

    Args:
        base: what ``run`` or ``load`` returned, or a run file.
        *new: others.

    Returns:
        As ``table`` does.

    Raises:
        ValueError: one run alone, or runs with no case in common.
    """
    if not new:
        raise ValueError("one run alone; give compare two or more")
    sides = open_sides([_run(each) for each in (base, *new)])
    return Sections(build(sides, [pair(sides[0], side) for side in sides[1:]]))


def _run(given: Run) -> pd.DataFrame | Path:
    return _frame(given) if isinstance(given, pd.DataFrame) else _paths([given])[0]


def _frame(records: Records) -> pd.DataFrame:
    """Records as ``load`` returns them: rows may have been chosen, or tables put together."""
    if not isinstance(records, pd.DataFrame):
        return load(records)
    missing = [name for name in NEEDED if name not in records]
    if missing:
        raise ValueError(
            f"records have no {missing[0]!r}: tables and figures are of what run, pretrain or load "
            "returned, not of counts, predictions or parts of records"
        )
    if records.empty:
        raise ValueError("there are no records: nothing was chosen")
    rows = records.reset_index(drop=True)
    # of several records of a case the last that is ok, as of several run files
    ok_last = rows.sort_values("status", key=lambda status: status == "ok", kind="stable")
    chosen = ok_last.drop_duplicates("key", keep="last").sort_index().reset_index(drop=True)
    chosen.attrs.update(records.attrs)
    return chosen


def _paths(given: Paths) -> list[Path]:
    several = [given] if isinstance(given, (str, Path)) else given
    if isinstance(several, pd.DataFrame) or not isinstance(several, Iterable):
        raise ValueError(f"run files are given as a path or a list of paths, got {_kind(given)}")
    found = list(several)
    for each in found:
        if not isinstance(each, (str, Path)):
            raise ValueError(f"a run file is given as a path, got {_kind(each)}")
    return [Path(each) for each in found]


def _kind(given: object) -> str:
    return "records" if isinstance(given, pd.DataFrame) else f"{type(given).__name__} {given!r:.40}"
