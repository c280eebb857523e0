"""The largest batch that fits in memory: a panel for each loss and each amount of memory."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lossbench.reports import style

TRIALS = ["panel", "limit", "line", "dim"]
WIDTH = 0.7
"""How far the implementations of one D spread; from D to D it is 1."""

VISIBLE = 1.25
"""From this ratio of its ends on, a bar is longer than the marker on it."""


def draw(records: pd.DataFrame) -> Figure:
    """The largest batch of a training step that fits, and up to the smallest that does not.

    An arrow up says that no batch was too large, an arrow down that none was small enough.

    Args:
        records: records of trials at several batches, some of which ran out of memory.

    Raises:
        ValueError: no step ran out of memory, and no largest batch was predicted.
    """
    rows = style.steps(records)
    rows["limit"] = style.numbers(rows, "memory_limit_bytes").fillna(0)
    found = _frontiers(rows)
    rows = rows[rows["panel"].isin(found["panel"])]
    panels, limits = sorted(found["panel"].unique()), sorted(found["limit"].unique())
    dims = sorted(found["dim"].unique())
    places = list(itertools.product(panels, limits))
    sizes = {limit: style.size(limit) if limit else "this device" for limit in limits}
    titles = [f"{panel}, {sizes[limit]}" if any(limits) else panel for panel, limit in places]
    columns = len(limits) if len(limits) > 1 else style.columns(len(panels))
    figure, axes = style.panels(titles, columns, 1.7, sharex=True, sharey=True)
    looks = style.looks(found["line"], linestyle="")
    for (panel, limit), axis in zip(places, axes, strict=True):
        _panel(axis, found[(found["panel"] == panel) & (found["limit"] == limit)], dims, looks)
    # after all bars, the ends of which matplotlib would take for logarithms
    axes[0].set_yscale("log", base=2)
    style.log_ticks(axes[0].yaxis, 2, style.plain)
    style.label(axes, columns, "dimension D", "batch N")
    style.head(figure, "Largest batch of a training step that fits in memory", rows)
    style.legend(figure, _handles(found, looks))
    return figure


def _frontiers(rows: pd.DataFrame) -> pd.DataFrame:
    """For each implementation, loss, D and memory: what fits, what does not, and the prediction."""
    batch = rows["loss_batch"]
    rows = rows.assign(
        fits=batch.where(rows["status"] == "ok"),
        fails=batch.where(rows["status"] == "oom"),
        predicted=style.numbers(rows, "predicted_largest_batch"),
    )
    bounds = {"fits": "max", "fails": "min", "predicted": "max"}
    found = rows.groupby(TRIALS).agg(bounds).reset_index()
    searched = found["fails"].notna() | found["predicted"].notna() | (found["limit"] > 0)
    if not searched.any():
        raise ValueError("no batch was too large; find the largest with lossbench run --frontier")
    return found[searched]


def _panel(
    axis: Axes, found: pd.DataFrame, dims: Sequence[int], looks: Mapping[str, style.Look]
) -> None:
    axis.set_xticks(range(len(dims)), [str(dim) for dim in dims])
    axis.set_xlim(-0.5, len(dims) - 0.5)
    for index, (line, look) in enumerate(looks.items()):
        points = found[found["line"] == line]
        x = points["dim"].map(dims.index) + WIDTH * ((index + 0.5) / len(looks) - 0.5)
        _interval(axis, x, points, {**look, "label": line})
        axis.plot(x, points["predicted"], label=f"{line} predicted", **look | style.HOLLOW)


def _interval(axis: Axes, x: pd.Series, points: pd.DataFrame, look: style.Look) -> None:
    """From what fits to what does not; an arrow over an octave where one of them is unknown."""
    fits, fails = points["fits"], points["fails"]
    y = fits.fillna(fails)
    below, above = (y / 2).where(fits.isna(), 0), (fails - y).where(fails.notna(), y)
    arrows = {"uplims": fits.isna(), "lolims": fails.isna()}
    settings: style.Look = {"capsize": 1.5, "elinewidth": 0.8, **arrows, **look}
    axis.errorbar(x, y, np.array([below, above]), **settings)


def _handles(found: pd.DataFrame, looks: Mapping[str, style.Look]) -> list[Artist]:
    handles: list[Artist] = [*style.keys(looks)]
    grey: style.Look = {"color": style.GREY, "linestyle": ""}
    if (found["fails"] > VISIBLE * found["fits"]).any():  # a bisection's are not
        label = "to the smallest that does not fit"
        handles.append(Line2D([], [], marker="|", label=label, **grey))
    if found["fails"].isna().any():
        handles.append(Line2D([], [], marker=r"$\uparrow$", label="none was too large", **grey))
    if found["predicted"].notna().any():
        handles.append(Line2D([], [], marker="o", label="predicted", **grey | style.HOLLOW))
    return handles
