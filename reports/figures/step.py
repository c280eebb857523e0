"""Where the time of a pretraining step goes, loss by loss, with the loss's share on top."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lossbench.reports import style
from lossbench.reports.naming import implementation, loss_title
from lossbench.reports.tables.throughput import is_seen, timed

HEIGHT = 2.1
"""Inches of a panel with five bars."""
TITLE = 34
"""Letters of a panel's title on a line."""
STACK = {
    "data_ms": ("data", "#FFFFFF", "...."),
    "augmentation_ms": ("augmentation", "#DDDDDD", ""),
    "encoder_forward_ms": ("encoder forward", "#56B4E9", ""),
    "projector_forward_ms": ("projector forward", "#0072B2", ""),
    "backward_ms": ("network backward", "#009E73", ""),
    "gradient_reduction_ms": ("adding up gradients", "#999999", "...."),
    "optimizer_ms": ("optimizer", "#F0E442", "////"),
    "communication_ms": ("gather", "#CC79A7", "xxxx"),
    "loss_forward_ms": ("loss forward", "#D55E00", ""),
    "loss_backward_ms": ("loss backward", "#E69F00", "\\\\\\\\"),
}
"""Phase -> name, colour, hatching; the loss is the end of each bar."""


def draw(records: pd.DataFrame) -> Figure:
    """Stacked bars, one for each run, a panel for each network and machine.

    Args:
        records: records of ``lossbench pretrain``.

    Raises:
        ValueError: no pretraining run was timed.
    """
    groups = timed(records)
    rows = pd.concat(own for _, own in groups).assign(mark="")
    heights = [HEIGHT * (0.35 + 0.13 * len(own)) for _, own in groups]
    titles = ["\n".join(textwrap.wrap(title, TITLE)) for title, _ in groups]
    figure, axes = style.panels(titles, 1, heights)
    for axis, (_, own) in zip(axes, groups, strict=True):
        _bars(axis, own)
    axes[-1].set_xlabel("ms a step", fontsize=style.SMALL)
    style.head(figure, "A pretraining step, and the loss's share of it", rows)
    handles: list[Artist] = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="black", linewidth=0.3, label=name)
        for phase, (name, colour, hatch) in STACK.items()
        if is_seen(rows, phase)
    ]
    style.legend(figure, handles)
    return figure


def _bars(axis: Axes, rows: pd.DataFrame) -> None:
    places = np.arange(len(rows))[::-1]
    left = np.zeros(len(rows))
    for phase, (_, colour, hatch) in STACK.items():
        width = style.numbers(rows, phase).fillna(0).to_numpy()
        axis.barh(
            places, width, left=left, color=colour, hatch=hatch, edgecolor="black", linewidth=0.3
        )
        left += width
    shares = style.numbers(rows, "loss_share")
    for place, end, share in zip(places, left, shares, strict=True):
        axis.annotate(
            f"{share:.1%}", (end, place), (3, 0), textcoords="offset points",
            size=style.SMALL, va="center",
        )  # fmt: skip
    names = [f"{loss_title(row)}, {implementation(row)}" for _, row in rows.iterrows()]
    axis.set_yticks(places, names, fontsize=style.SMALL)
    axis.set_xlim(0, left.max() * 1.25)
