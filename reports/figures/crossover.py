"""Where which implementation of a loss, and which loss, is cheapest: counted, and measured on top.

The map is counted: for every N and D, the least multiply-adds of a step by the cost models. The
dots are measured: the fastest implementation, or loss, of the run at that N and D.
"""

import itertools
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

import losses
from losses.auto import choose

BATCHES = [2**k for k in range(4, 15)]
DIMS = [2**k for k in range(6, 15)]
WAYS = ("reference", "gram", "chunked", "compiled")
WAY_COLOURS = ("#c44e52", "#4c72b0", "#dd8452", "#8172b3")
LOSS_COLOURS = tuple(plt.get_cmap("Set2").colors)  # type: ignore[attr-defined]
UNLIMITED = 2**62


def draw(records: pd.DataFrame) -> Figure:
    """One panel for each loss that was measured, and one that compares the losses at their best.

    Args:
        records: records of a run with several shapes, such as the scaling suite.

    Raises:
        ValueError: no step was measured.
    """
    rows = records[(records["status"] == "ok") & (records["pass"] == "step")]
    rows = rows[(rows["variant"] == "") & (rows["contender"] == "") & (rows["options"] == "")]
    rows = rows[(rows["dtype"] == "float32") & (rows["inputs"] == "random")]
    rows = rows[(rows["implementation"] != "auto") & (rows["distribution"] == "local")]
    if rows.empty:
        raise ValueError("no step was measured; run lossbench run --suite scaling first")
    names = [name for name in losses.names() if name in set(rows["loss"])]
    columns = 3
    lines = -(-(len(names) + 1) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(11, 3.6 * lines), layout="constrained")
    panels = axes.flatten()
    for axis, name in zip(panels, names, strict=False):
        best = _fastest(rows[rows["loss"] == name])["implementation"]
        _panel(axis, losses.spec(name).title, _cheapest_way(name), WAYS, WAY_COLOURS, best)
    titles = [losses.spec(name).title for name in names]
    fastest = _fastest(rows)["loss"].map(dict(zip(names, titles, strict=True)))
    title = "The cheapest loss (of equals, the first)"
    _panel(panels[len(names)], title, _cheapest_loss(names), titles, LOSS_COLOURS, fastest)
    for axis in panels[len(names) + 1 :]:
        axis.axis("off")
    machine = ", ".join(rows["machine"].unique())
    figure.suptitle(f"A training step: least work (map, counted) and fastest (dots)\n{machine}")
    return figure


def _cheapest_way(name: str) -> np.ndarray:
    """Index into ``WAYS`` of the implementation with the least work, D x N."""
    return _map(lambda batch, dim: WAYS.index(_choice(name, batch, dim)[0]))


def _cheapest_loss(names: Sequence[str]) -> np.ndarray:
    return _map(lambda batch, dim: int(np.argmin([_choice(name, batch, dim)[1] for name in names])))


def _map(cheapest: Callable[[int, int], int]) -> np.ndarray:
    shapes = itertools.product(DIMS, BATCHES)
    return np.reshape([cheapest(n, d) for d, n in shapes], (len(DIMS), len(BATCHES)))


def _choice(name: str, batch: int, dim: int) -> tuple[str, int]:
    """The implementation with the least work, and that work."""
    spec = losses.spec(name)
    problem = losses.Problem(batch, dim)
    costs = {way: spec.cost(way, problem) for way in WAYS if way != "compiled"}
    way = choose(costs, problem, "step", UNLIMITED).implementation
    return way, costs[way].macs("step")


def _fastest(rows: pd.DataFrame) -> pd.DataFrame:
    """The fastest record at each N and D."""
    best = rows.loc[rows.groupby(["loss_batch", "dim"])["median_ms"].idxmin()]
    return best.set_index(["loss_batch", "dim"])


def _panel(
    axis: Axes,
    title: str,
    cheapest: np.ndarray,
    names: Sequence[str],
    colours: Sequence[str],
    measured: pd.Series,
) -> None:
    palette, top = ListedColormap(colours[: len(names)]), len(names) - 0.5
    axis.pcolormesh(BATCHES, DIMS, cheapest, cmap=palette, alpha=0.55, vmin=-0.5, vmax=top)
    shapes = measured.index.to_frame()
    for batch, dim, name in zip(shapes["loss_batch"], shapes["dim"], measured, strict=True):
        colour = colours[list(names).index(name)]
        axis.plot(batch, dim, "o", markersize=9, color=colour, markeredgecolor="black")
    axis.set(xscale="log", yscale="log", title=title, xlabel="batch N", ylabel="dimension D")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(plt.LogLocator(base=2, subs=(1,), numticks=6))
        scale.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:.0f}"))
    axis.minorticks_off()
    shown = {int(index) for index in np.unique(cheapest)} | {
        list(names).index(name) for name in measured
    }
    handles: list[Patch | Line2D] = [
        Patch(color=colours[i], alpha=0.7, label=names[i]) for i in sorted(shown)
    ]
    axis.legend(handles=handles, loc="lower right", fontsize=8, framealpha=0.9)
