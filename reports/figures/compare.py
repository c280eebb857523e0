"""Times of a training step on other machines, or by other code, over those of the first run."""

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from reports import style, unpaired
from reports.compare import CASE, mean_ratio

SHOWN = ["subject", "mark", "line", "dim", "loss_batch"]
ROW = 0.1
"""Inches from case to case."""
LOOKS: dict[str, style.Look] = {
    "FASTER": {"color": "#0072B2", "marker": "<"},
    "SLOWER": {"color": "#D55E00", "marker": ">"},
    "SAME": {"color": "black", "marker": "s"},
    "UNRESOLVED": {"color": "#999999", "marker": "o"},
}
MEAN: style.Look = {"color": style.GREY, "linestyle": "--", "linewidth": 0.9}


def draw(records: pd.DataFrame) -> Figure:
    """A panel for each loss and other run: ratio and interval of each case, and geometric mean.

    Args:
        records: records of two runs or more, which differ in machine, code or date.

    Raises:
        ValueError: the records are of one run, or no step was measured in the first and another.
    """
    rows = style.steps(records)
    ratios = _ratios(rows)
    places = list(ratios.groupby(["subject", "mark"]))
    others = ratios["mark"].nunique()
    columns = min(others, 3) if others > 1 else min(len(places), 2)
    height = ROW * max(len(cases) for _, cases in places) + 0.3
    titles = [f"{loss}, {run} / A: mean {mean_ratio(c):.3g}x" for (loss, run), c in places]
    figure, axes = style.panels(titles, columns, height, sharex=True)
    limits = _limits(ratios)
    for (_, cases), axis in zip(places, axes, strict=True):
        axis.axvline(1, color="black", linewidth=0.7)
        axis.axvline(mean_ratio(cases), label="mean", **MEAN)
        _cases(axis, cases, limits)
    axes[0].set(xscale="log", xlim=limits)
    _ticks(axes[0].xaxis, *limits)
    style.head(figure, "Time of a training step over that of A (N x D)", rows)
    style.legend(figure, _handles(ratios))
    return figure


def _ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Ratio, interval and verdict of the cases that the first run and another have measured."""
    if rows["mark"].nunique() < 2:
        raise ValueError("one run alone; give figure compare two that differ in machine or code")
    rows = rows.assign(median_ms=style.numbers(rows, "median_ms")).dropna(subset="median_ms")
    rows["case"] = rows.reindex(columns=list(CASE)).astype(str).agg(" ".join, axis=1)
    rows = rows.drop_duplicates(["case", "mark"], keep="last").set_index("case")
    base, others = rows[rows["mark"] == "A"], rows[rows["mark"] != "A"]
    others = others[others.index.isin(base.index)]
    if others.empty:
        raise ValueError("the runs have no measured step in common; measure the same cases in both")
    runs = [run for _, run in others.groupby("mark")]
    return pd.concat([run[SHOWN].join(unpaired.compare(base.loc[run.index], run)) for run in runs])


def _limits(ratios: pd.DataFrame) -> tuple[float, float]:
    """Wide enough for every interval that has an end."""
    ends = ratios[["ratio", "low", "high"]].to_numpy()
    ends = ends[(ends > 0) & np.isfinite(ends)]
    return min(1, ends.min()) / 1.15, max(1, ends.max()) * 1.15


def _ticks(scale: Axis, left: float, right: float) -> None:
    """Powers of ten name too few places of a narrow range."""
    style.log_ticks(scale, 10, "{:g}x".format, subs=(1, 3))
    if right < 10 * left:
        scale.set_major_locator(MaxNLocator(5))
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
    axis.set_ylim(len(cases) - 0.4, -0.6)


def _handles(ratios: pd.DataFrame) -> list[Artist]:
    said = [verdict for verdict in LOOKS if verdict in set(ratios["verdict"])]
    handles: list[Artist] = [
        Line2D([], [], linestyle="", markersize=3, label=verdict, **LOOKS[verdict])
        for verdict in said
    ]
    return [*handles, Line2D([], [], label="geometric mean", **MEAN)]
