"""What figures have in common: which rows they show, sizes, colours and markers, titles, legends.

A figure is drawn at the size at which it is printed: 3.3 inches for a column of a paper, 7 inches
for two. An implementation keeps its colour and marker from figure to figure. Measurements are solid
and filled, predictions dashed and hollow: no figure is read by colour alone.
"""

import itertools
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lossbench.reports.naming import each, letter, loss_title

COLUMN, DOUBLE = 3.3, 7.0
"""Inches: one column, and two."""
TEXT, SMALL = 7.5, 6.5
"""Points: of titles, and of everything else."""
LETTER = 0.56
"""Mean width of a letter to the size of its font."""
GREY, FAINT = "#666666", "#cccccc"
Look = dict[str, Any]
"""Settings of a matplotlib line."""
FILLED: Look = {"markersize": 3.2, "linewidth": 0.9}
HOLLOW: Look = {
    "markersize": 5.5,
    "markerfacecolor": "none",
    "markeredgewidth": 0.6,
    "linewidth": 0.7,
}
"""Markers of measurements, and of predictions around them."""
LOOKS = {
    "reference": ("#000000", "o"),
    "gram": ("#0072B2", "s"),
    "chunked": ("#009E73", "^"),
    "compiled": ("#E69F00", "D"),
    "triton": ("#D55E00", "P"),
    "auto": ("#CC79A7", "v"),
}
"""Colour (of Okabe and Ito, which colour-blind readers tell apart) and marker."""
OTHER = "#56B4E9"
"""Colour of other libraries."""
SPARE = "*<>phdX8"
"""Markers of other libraries, and of an implementation's further options."""


def steps(records: pd.DataFrame) -> pd.DataFrame:
    """The training steps of a known shape among records, whatever became of them.

    Returns:
        The rows with four more columns: ``subject`` (the loss, and what is not as usual), ``line``
        (the implementation with its options and precision), ``mark`` (a letter for each machine, if
        there are several, unless the records have marks) and ``panel`` (the subject with the mark).
    """
    shape = ["loss_batch", "dim", "dtype"]
    known = records.reindex(columns=records.columns.union(["pass", *shape], sort=False))
    rows = known[known["pass"] == "step"].dropna(subset=shape)
    rows = rows.astype({"loss_batch": int, "dim": int}).copy()  # in one piece, or it is slow
    if "mark" not in rows:
        machines = list(rows["machine"].unique())
        marks = {machine: letter(number) for number, machine in enumerate(machines)}
        rows["mark"] = rows["machine"].map(marks) if len(machines) > 1 else ""
    rows["subject"], rows["line"] = each(rows, _subject), each(rows, _line)
    losses = rows.groupby("subject")["loss"].transform("nunique")
    named = rows["subject"] + " (" + rows["loss"] + ")"
    rows["subject"] = rows["subject"].where(losses == 1, named)  # titles may be alike
    rows["panel"] = rows["subject"].where(rows["mark"] == "", rows["subject"] + ", " + rows["mark"])
    return rows


def _subject(row: pd.Series) -> str:
    unusual = [row["dtype"]] if row["dtype"] != "float32" else []
    unusual += [f"{row['inputs']} inputs"] if row["inputs"] != "random" else []
    return ", ".join([loss_title(row), *unusual])


def _line(row: pd.Series) -> str:
    """As in tables, but ``auto`` is one line, whatever it chose."""
    return " ".join(filter(None, (row["implementation"], row["options"], row["products"])))


def numbers(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column as floats; all of them missing in runs that are older than the field."""
    if name not in rows:
        return pd.Series(np.nan, index=rows.index)
    return pd.to_numeric(rows[name], errors="coerce")


def looks(lines: Iterable[str], linestyle: str = "-") -> dict[str, Look]:
    """How each line is drawn, in the order of a legend."""
    spare, taken = itertools.cycle(SPARE), set()
    found = {}
    known = list(LOOKS)
    rank = {line: (*known, line.split()[0]).index(line.split()[0]) for line in set(lines)}
    for line in sorted(rank, key=lambda line: (rank[line], line)):
        colour, marker = LOOKS.get(line.split()[0], (OTHER, next(spare)))
        if marker in taken:
            marker = next(spare)
        taken.add(marker)
        found[line] = {"color": colour, "marker": marker, "linestyle": linestyle, **FILLED}
    return found


def subjects(names: Iterable[str]) -> dict[str, Look]:
    """Lines of losses, where no colour means an implementation: each its colour and marker."""
    unique = list(dict.fromkeys(names))
    kinds = zip(unique, itertools.cycle(LOOKS.values()), strict=False)
    return {
        name: {"color": colour, "marker": marker, "linestyle": "-", **FILLED}
        for name, (colour, marker) in kinds
    }


def shades(names: Iterable[str]) -> dict[str, Look]:
    """Markers for what is no implementation, in greys: colours mean implementations."""
    unique = list(dict.fromkeys(names))
    greys = np.linspace(0, 0.5, len(unique)).astype(str)
    marked = zip(unique, greys, itertools.cycle(SPARE), strict=False)
    return {
        name: {"color": grey, "marker": marker, "linestyle": "", **FILLED}
        for name, grey, marker in marked
    }


def panels(
    titles: Sequence[str], columns: int, height: float | Sequence[float], **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of one or two columns' width.

    Args:
        titles: of the panels.
        columns: how many panels stand side by side.
        height: of a panel with its title, in inches; or those of the rows of panels.
        shared: ``sharex``, ``sharey`` as matplotlib has them.
    """
    count = len(titles)
    lines = math.ceil(count / columns)
    heights = [height] * lines if isinstance(height, float) else height
    figsize = (COLUMN if columns == 1 else DOUBLE, sum(heights))
    settings = {"squeeze": False, "layout": "constrained", "height_ratios": heights, **shared}
    figure, grid = plt.subplots(lines, columns, figsize=figsize, **settings)
    axes = list(grid.flat)
    for axis in axes:
        axis.tick_params(labelsize=SMALL)
        axis.grid(color="#e0e0e0", linewidth=0.4)
        axis.set_axisbelow(True)
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title, fontsize=TEXT)
    for axis in axes[count - columns : count]:  # the lowest of each column
        axis.tick_params(labelbottom=True)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def columns(count: int) -> int:
    """How many of so many like panels stand side by side."""
    return 2 if count == 4 else min(count, 3)


def label(axes: Sequence[Axes], columns: int, x: str, y: str = "") -> None:
    """Name the axes of panels below the lowest of each column and beside the first of each row."""
    for axis in axes[-columns:]:
        axis.set_xlabel(x, fontsize=SMALL)
    for axis in axes[::columns]:
        axis.set_ylabel(y, fontsize=SMALL)


def head(figure: Figure, title: str, rows: pd.DataFrame) -> None:
    """Title of a figure, and below it the machines that its rows come from."""
    width = int(figure.get_figwidth() * 72 / (LETTER * TEXT))
    machines = rows[["mark", "machine"]].drop_duplicates().itertuples(index=False, name=None)
    lines = [title, *(f"{mark}: {machine}" if mark else machine for mark, machine in machines)]
    text = "\n".join(textwrap.fill(line, width) for line in lines)
    figure.suptitle(text, fontsize=TEXT)
    _make_room(figure, text.count("\n") + 1, TEXT)


def keys(looks: Mapping[str, Look]) -> list[Line2D]:
    """The lines of ``looks`` for a legend."""
    return [Line2D([], [], label=line, **look) for line, look in looks.items()]


def legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend below the panels, in as many columns as its longest text leaves room for."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, int(figure.get_figwidth() * 72 / (LETTER * SMALL * longest + 5 * SMALL)))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        fontsize=SMALL,
        frameon=False,
    )
    _make_room(figure, math.ceil(len(handles) / columns) + 1, SMALL)


def _make_room(figure: Figure, lines: int, points: float) -> None:
    """Make a figure higher by lines of text, so that its panels keep their height."""
    figure.set_figheight(figure.get_figheight() + lines * 1.5 * points / 72)


def log_ticks(
    scale: Axis,
    base: int,
    form: Callable[[float], str],
    subs: Sequence[float] = (1,),
    most: int = 6,
) -> None:
    """Labels at ``subs`` times the powers of ``base`` alone, of at most so many powers."""
    scale.set_major_locator(plt.LogLocator(base=base, subs=subs, numticks=most))
    scale.set_major_formatter(plt.FuncFormatter(lambda value, _: form(value)))
    scale.set_minor_formatter(plt.NullFormatter())


def few_ticks(scale: Axis, form: Callable[[float], str]) -> None:
    """Labels of a logarithmic axis that do not run into each other, however short or long it is."""
    low, high = scale.get_view_interval()
    if high < 10 * low:
        scale.set_major_locator(plt.MaxNLocator(3, steps=[1, 2, 5, 10]))
        scale.set_major_formatter(plt.FuncFormatter(lambda value, _: form(value)))
        scale.set_minor_formatter(plt.NullFormatter())
    else:
        log_ticks(scale, 10, form, subs=(1, 3) if high < 100 * low else (1,))


def plain(value: float) -> str:
    """A number without an exponent."""
    return f"{value:,.10g}"


def duration(milliseconds: float) -> str:
    """Milliseconds, from a thousand on as seconds."""
    return f"{milliseconds:g} ms" if milliseconds < 1e3 else f"{milliseconds / 1e3:,g} s"


def size(value: float) -> str:
    """Bytes in the largest unit of which there is one: 24 GB is 24 * 10^9 bytes."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:g} {name}"
    return f"{value:g} B"
