"""Where which implementation of a loss, and which loss, is cheapest: counted, and measured on top.

The map and its hollow markers are counted: for every N and D, the least multiply-adds of a step by
the cost models of this project's losses. The filled markers are measured: the fastest
implementation, or loss, of the run at that N and D, whoever wrote it.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from lossbench import losses
from lossbench.losses.auto import choose
from lossbench.reports import style

BATCHES = [2**k for k in range(4, 15)]
DIMS = [2**k for k in range(6, 15)]
WAYS = ("reference", "gram", "chunked")
"""Implementations that have work of their own to count."""
UNLIMITED = 2**62
HEIGHT = 1.9
"""Inches of a panel."""
COUNTED: style.Look = {"markersize": 3, "markerfacecolor": "none", "markeredgewidth": 0.4}
MEASURED: style.Look = {"markersize": 5.5, "markeredgecolor": "white", "markeredgewidth": 0.5}


def draw(records: pd.DataFrame) -> Figure:
    """A panel for each loss that was measured, and one that compares the losses at their best.

    Args:
        records: records of a run with several shapes, such as the scaling suite.

    Raises:
        ValueError: no step was measured.
    """
    rows = _measured(records)
    if rows.empty:
        raise ValueError("no step was measured; run lossbench run --suite scaling first")
    places = list(rows.groupby(["panel", "loss"]))
    machines = [(str(mark), own) for mark, own in rows.groupby("mark")]
    titles = [str(panel) for (panel, _), _ in places]
    titles += [
        f"The cheapest loss, {mark}" if mark else "The cheapest loss" for mark, _ in machines
    ]
    columns = style.columns(len(titles))
    figure, axes = style.panels(titles, columns, HEIGHT, sharex=True, sharey=True)
    ways = style.looks([*WAYS, *rows["line"]], linestyle="")
    names = dict(rows[["loss", "subject"]].to_numpy())
    ours = [name for name in losses.names() if name in names]
    kinds = style.shades([*(names[name] for name in ours), *sorted({*names.values()})])
    shown = set()
    for ((_, name), own), axis in zip(places, axes, strict=False):
        cheapest = _cheapest_way(name) if name in ours else None
        shown |= _panel(axis, cheapest, WAYS, ways, _fastest(own)["line"])
    cheapest = _cheapest_loss(ours) if ours else None
    for (_, own), axis in zip(machines, axes[len(places) :], strict=True):
        fastest = _fastest(own)["subject"]
        shown |= _panel(axis, cheapest, [names[name] for name in ours], kinds, fastest)
    style.label(axes, columns, "batch N", "dimension D")
    title = "A training step: least work (map, counted; of equal losses the first)"
    title += " and fastest (filled, measured)"
    style.head(figure, title, rows)
    looks = {name: look for name, look in (ways | kinds).items() if name in shown}
    style.legend(figure, style.keys(looks))
    return figure


def _measured(records: pd.DataFrame) -> pd.DataFrame:
    """Steps of the losses as published, in one device's batch of random numbers in float32."""
    rows = style.steps(records)
    rows = rows[(rows["status"] == "ok") & (rows["distribution"] == "local")]
    rows = rows[(rows["variant"] == "") & (rows["contender"] == "") & (rows["options"] == "")]
    rows = rows[(rows["dtype"] == "float32") & (rows["inputs"] == "random")]
    return rows[rows["implementation"] != "auto"]


def _cheapest_way(name: str) -> np.ndarray:
    """Index into ``WAYS`` of the implementation with the least work, D x N."""
    return _map(lambda batch, dim: WAYS.index(_choice(name, batch, dim)[0]))


def _cheapest_loss(names: Sequence[str]) -> np.ndarray:
    """Index of the loss with the least work, of equals the first, D x N."""
    return _map(lambda batch, dim: int(np.argmin([_choice(name, batch, dim)[1] for name in names])))


def _map(cheapest: Callable[[int, int], int]) -> np.ndarray:
    shapes = itertools.product(DIMS, BATCHES)
    return np.reshape([cheapest(n, d) for d, n in shapes], (len(DIMS), len(BATCHES)))


def _choice(name: str, batch: int, dim: int) -> tuple[str, int]:
    """The implementation with the least work, and that work."""
    spec = losses.spec(name)
    problem = losses.Problem(batch, dim)
    costs = {way: spec.cost(way, problem) for way in WAYS if way in spec.cost_models}
    way = choose(costs, problem, "step", UNLIMITED).implementation
    return way, costs[way].macs("step")


def _fastest(rows: pd.DataFrame) -> pd.DataFrame:
    """The fastest record at each N and D."""
    best = rows.loc[rows.groupby(["loss_batch", "dim"])["median_ms"].idxmin()]
    return best.set_index(["loss_batch", "dim"])


def _panel(
    axis: Axes,
    cheapest: np.ndarray | None,
    names: Sequence[str],
    looks: Mapping[str, style.Look],
    measured: pd.Series,
) -> set[str]:
    """Draw a map of indices into ``names``, if there is one, and what was fastest.

    Returns:
        What the legend has to explain.
    """
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    counted = set() if cheapest is None else {names[index] for index in np.unique(cheapest)}
    if cheapest is not None:
        palette = ListedColormap([looks[name]["color"] for name in names])
        settings: style.Look = {"cmap": palette, "vmin": -0.5, "vmax": len(names) - 0.5}
        axis.pcolormesh(_edges(BATCHES), _edges(DIMS), cheapest, alpha=0.25, **settings)
    for name in sorted(counted):
        cells = np.argwhere(cheapest == list(names).index(name))
        shapes = [(BATCHES[column], DIMS[row]) for row, column in cells]
        free = np.array([shape for shape in shapes if shape not in measured.index])
        axis.plot(*free.reshape(-1, 2).T, label=f"{name} counted", **looks[name] | COUNTED)
    for name, best in measured.groupby(measured):
        axis.plot(*zip(*best.index, strict=True), label=name, **looks[str(name)] | MEASURED)
    style.log_ticks(axis.xaxis, 2, "{:.0f}".format)
    style.log_ticks(axis.yaxis, 2, "{:.0f}".format)
    axis.minorticks_off()
    return counted | set(measured)


def _edges(centres: Sequence[int]) -> np.ndarray:
    """Of cells about powers of two."""
    return np.array([*centres, 2 * centres[-1]]) / np.sqrt(2)
