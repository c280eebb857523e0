"""Times of a training step in other runs over those of the first: machines, code or sessions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from lossbench.reports import style, unpaired
from lossbench.reports.compare import CASE, mean_ratio, open_sides

SHOWN = ["subject", "line", "dim", "loss_batch"]
PANEL = ["subject", "mark"]
ROW, TITLE = 0.1, 0.3
"""Inches from case to case, and for the title of a panel."""
MARGIN = 0.1
"""Inches beside and between the panels, whose names of cases are long."""
LOOKS: dict[str, style.Look] = {
    "FASTER": {"color": "#0072B2", "marker": "<"},
    "SLOWER": {"color": "#D55E00", "marker": ">"},
    "SAME": {"color": "black", "marker": "s"},
    "UNRESOLVED": {"color": "#999999", "marker": "o"},
}
NARROW = 50
"""Up to this span of ratios an axis has room for more than the powers of ten."""
MEAN: style.Look = {"color": style.GREY, "linestyle": "--", "linewidth": 0.9}


def read(paths: Sequence[Path]) -> pd.DataFrame:
    """Records of runs that are kept apart, with ``mark``: A for those of the first, then B, C, ...

    Records of two sessions of the same code share their keys: merged, they would be one.

    Raises:
        RunFileError: a file that is missing or damaged.
        ValueError: one run alone, one without records, or with no case of the first.
    """
    if len(paths) < 2:
        raise ValueError("one run alone; give figure compare two or more")
    sides = open_sides(paths)
    names = [f"{side.path}, " + side.rows["machine"] for side in sides]
    rows = zip(sides, names, strict=True)
    return pd.concat([side.rows.assign(mark=side.name, machine=name) for side, name in rows])


def draw(records: pd.DataFrame) -> Figure:
    """A panel for each other run and loss: ratio and interval of each case, and geometric mean.

    Args:
        records: what ``read`` returns.

    Raises:
        ValueError: a run has no measured step in common with the first.
    """
    rows = style.steps(records)
    ratios = _ratios(rows, list(records["mark"].unique()))
    places = list(ratios.groupby(PANEL, sort=False))
    columns = min(len(places), 2)
    counts = [len(cases) for _, cases in places]
    counts = [max(counts[i : i + columns]) for i in range(0, len(counts), columns)]
    titles = [f"{loss}, {run} / A: mean {mean_ratio(c):.3g}x" for (loss, run), c in places]
    heights = [ROW * (count + 1) + TITLE for count in counts]
    figure, axes = style.panels(titles, columns, heights, sharex=True)
    limits = _limits(ratios)
    for number, ((_, cases), axis) in enumerate(zip(places, axes, strict=True)):
        axis.axvline(1, color="black", linewidth=0.7)
        axis.axvline(mean_ratio(cases), label="mean", **MEAN)
        _cases(axis, cases, limits)
        axis.set_ylim(counts[number // columns], -1)
    axes[0].set(xscale="log", xlim=limits)
    figure.set_layout_engine("constrained", w_pad=MARGIN)
    _ticks(axes[0].xaxis, *limits)
    style.head(figure, "Time of a training step over that of A (N x D)", rows)
    style.legend(figure, _handles(ratios))
    return figure


def _ratios(rows: pd.DataFrame, marks: Sequence[str]) -> pd.DataFrame:
    """Ratio, interval and verdict of the cases that the first run and another have measured."""
    rows = rows.assign(median_ms=style.numbers(rows, "median_ms")).dropna(subset="median_ms")
    rows["case"] = rows.reindex(columns=list(CASE)).astype(str).agg(" ".join, axis=1)
    rows = rows.set_index("case")
    base, *others = (rows[rows["mark"] == mark] for mark in marks)
    parts = []
    for mark, run in zip(marks[1:], others, strict=True):
        run = run[run.index.isin(base.index)]
        if run.empty:
            raise ValueError(f"no measured step in common of A and {mark}; measure the same cases")
        named = base.loc[run.index]
        part = named[SHOWN].assign(mark=mark).join(unpaired.compare(named, run))
        parts.append(part.sort_values("subject", kind="stable"))
    return pd.concat(parts)


def _limits(ratios: pd.DataFrame) -> tuple[float, float]:
    """Wide enough for every interval that has an end."""
    ends = ratios[["ratio", "low", "high"]].to_numpy()
    ends = ends[(ends > 0) & np.isfinite(ends)]
    return min(1, ends.min()) / 1.15, max(1, ends.max()) * 1.15


def _ticks(scale: Axis, left: float, right: float) -> None:
    """As many as have room; powers of ten name too few places of a narrow range."""
    narrow = right < NARROW * left
    style.log_ticks(scale, 10, "{:g}x".format, subs=(1, 3) if narrow else (1,), most=4)
    if right < 10 * left:
        scale.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        scale.set_minor_locator(NullLocator())


def _cases(axis: Axes, cases: pd.DataFrame, limits: tuple[float, float]) -> None:
    """A line for each case, the first on top; an interval without end reaches the frame."""
    order = list(style.looks(cases["line"]))
    cases = cases.assign(place=cases["line"].map(order.index))
    cases = cases.sort_values(["place", "dim", "loss_batch"], ignore_index=True)
    for verdict, look in LOOKS.items():
        said = cases[cases["verdict"] == verdict]
        low, high = said["low"].clip(lower=limits[0]), said["high"].clip(upper=limits[1])
        bars = np.array([said["ratio"] - low, high - said["ratio"]])
        settings: style.Look = {**look, "linestyle": "", "markersize": 3, "elinewidth": 0.8}
        axis.errorbar(said["ratio"], said.index, xerr=bars, label=verdict, **settings)
    labels = [f"{case.line}, {case.loss_batch} x {case.dim}" for case in cases.itertuples()]
    axis.set_yticks(cases.index, labels)


def _handles(ratios: pd.DataFrame) -> list[Artist]:
    said = [verdict for verdict in LOOKS if verdict in set(ratios["verdict"])]
    handles: list[Artist] = [
        Line2D([], [], linestyle="", markersize=3, label=verdict, **LOOKS[verdict])
        for verdict in said
    ]
    return [*handles, Line2D([], [], label="geometric mean", **MEAN)]
