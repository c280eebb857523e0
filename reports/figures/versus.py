"""Several losses on one axis: the time of a step against the batch, the dimension or the memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossbench.reports import style
from lossbench.reports.modules import pick

SHAPE = {
    "batch": ("loss_batch", "batch N", "dim", "D"),
    "dim": ("dim", "dimension D", "loss_batch", "N"),
}
"""Axis -> field and name of it, and the field and letter of what each panel is of."""
AGAINST = (*SHAPE, "memory")
HEIGHT = 2.1
"""Inches of a panel."""
PARETO = "nothing is faster"
"""With as little memory, or at that batch or dimension."""


def draw(records: pd.DataFrame, *, against: str = "") -> Figure:
    """Each loss by its fastest implementation; against memory, by every implementation.

    Bars reach from the 20th to the 80th percentile of the samples. The grey line joins what nothing
    beats: the fastest at each batch or dimension, or, against memory, all that no other beats in
    both time and memory.

    Args:
        records: records of a run.
        against: one of ``AGAINST``; default: of batch and dimension the one that varies more.

    Raises:
        ValueError: an unknown axis, or no step was measured.
    """
    rows = style.steps(records)
    rows = rows[(rows["status"] == "ok") & rows["median_ms"].notna()]
    if rows.empty:
        raise ValueError("no step was measured; run lossbench run first")
    if not against:
        against = "dim" if rows["dim"].nunique() > rows["loss_batch"].nunique() else "batch"
    pick("axis of figure versus", against, AGAINST)
    figure = _against_memory(rows) if against == "memory" else _against(rows, against)
    title = f"A training step of each loss, against {against}: median, 20th to 80th percentile"
    style.head(figure, title, rows)
    looks = style.subjects(rows["subject"])
    front = {PARETO: {"color": style.FAINT, "linewidth": 3, "marker": "o", "markersize": 7}}
    style.legend(figure, style.keys(looks | front))
    return figure


def _against(rows: pd.DataFrame, against: str) -> Figure:
    """A panel for each dimension or batch."""
    field, name, other, letter = SHAPE[against]
    best = rows.loc[rows.groupby(["panel", "loss_batch", "dim"])["median_ms"].idxmin()]
    groups = list(best.groupby(["mark", other]))
    titles = [_title(mark, f"{letter} = {value}") for (mark, value), _ in groups]
    figure, axes, columns = _panels(titles)
    for (_, own), axis in zip(groups, axes, strict=True):
        front = own.groupby(field)["median_ms"].min()
        _front(axis, front.index, front)
        for subject, line in own.sort_values(field).groupby("subject"):
            _points(axis, line, field, str(subject), rows)
        _scale(axis)
        style.log_ticks(axis.xaxis, 2, "{:.0f}".format)
    style.label(axes, columns, name, "step")
    return figure


def _against_memory(rows: pd.DataFrame) -> Figure:
    """A panel for each shape."""
    known = rows[rows["peak_bytes"].notna()]
    groups = list(known.groupby(["mark", "loss_batch", "dim"]))
    titles = [_title(mark, f"N = {batch}, D = {dim}") for (mark, batch, dim), _ in groups]
    figure, axes, columns = _panels(titles)
    for (_, own), axis in zip(groups, axes, strict=True):
        front = pareto(own)
        _front(axis, front["peak_bytes"], front["median_ms"])
        for subject, points in own.groupby("subject"):
            _points(axis, points, "peak_bytes", str(subject), rows, line="")
        _scale(axis)
        style.few_ticks(axis.xaxis, style.size)
    style.label(axes, columns, "peak memory beyond the inputs", "step")
    return figure


def pareto(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that no other beats in both ``median_ms`` and ``peak_bytes``, by memory."""
    ordered = rows.sort_values(["peak_bytes", "median_ms"])
    best_before = ordered["median_ms"].cummin().shift(fill_value=np.inf)
    return ordered[ordered["median_ms"] < best_before]


def _title(mark: Any, shape: str) -> str:
    """Of a panel; runs of several machines have marks."""
    return f"{mark}, {shape}" if mark else shape


def _panels(titles: Sequence[str]) -> tuple[Figure, list[Axes], int]:
    columns = style.columns(len(titles))
    return *style.panels(titles, columns, HEIGHT), columns


def _scale(axis: Axes) -> None:
    """Logarithmic axes, of what is drawn."""
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.autoscale()
    style.few_ticks(axis.yaxis, style.duration)


def _front(axis: Axes, x: Any, y: Any) -> None:
    axis.plot(x, y, color=style.FAINT, linewidth=3, marker="o", markersize=7, zorder=1)


def _points(
    axis: Axes, rows: pd.DataFrame, x: str, subject: str, of_all: pd.DataFrame, line: str = "-"
) -> None:
    look = style.subjects(of_all["subject"])[subject]
    middle = rows["median_ms"]
    bars = np.maximum([middle - rows["p20_ms"], rows["p80_ms"] - middle], 0)
    axis.errorbar(rows[x], middle, yerr=bars, elinewidth=0.6, **look | {"linestyle": line})
