"""Peak memory of a training step against the batch, laid out as the figure of times."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossbench.reports import style
from lossbench.reports.figures.scaling import Quantity, against_batch

DEVICES = (8 * 10**9, 24 * 10**9, 80 * 10**9)
"""Bytes of GPUs of three kinds, far enough apart for their names."""
PEAK = Quantity(
    "Peak memory of a training step beyond its inputs, against batch N",
    measured="peak_bytes",
    predicted="predicted_peak_bytes",
    form=style.size,
)


def draw(records: pd.DataFrame) -> Figure:
    """Peak bytes of a step beyond its inputs, their prediction, and memories of GPUs in range.

    Args:
        records: records of a run with several batches, such as the scaling suite.

    Raises:
        ValueError: no step was measured at two batches.
    """
    figure = against_batch(records, PEAK)
    for axis in figure.axes:
        _devices(axis)
    return figure


def _devices(axis: Axes) -> None:
    """Lines at the memories that a panel reaches, named beside the last panel of a row."""
    bottom, top = axis.get_ylim()
    place = axis.get_subplotspec()
    for memory in DEVICES:
        if bottom < memory < top:
            axis.axhline(memory, color=style.GREY, linewidth=0.6, label="device")
            if place and place.is_last_col():
                beside, text = axis.get_yaxis_transform(), style.size(memory)
                axis.annotate(text, (1.01, memory), xycoords=beside, size=style.SMALL, va="center")
