"""Time of a training step against the batch: a row of panels for each loss, a column for each D."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lossbench.reports import published, style
from lossbench.reports.tables.efficiency import BATCH, DIM, WORLD

PANEL = ["panel", "dim"]
PREDICTED: style.Look = {**style.HOLLOW, "linestyle": (0, (4, 2))}
PUBLISHED: style.Look = {"color": style.GREY, "linestyle": ":", "linewidth": 1.0}


@dataclass(frozen=True)
class Quantity:
    """What is drawn against the batch.

    Attributes:
        title: what the figure shows, in a line.
        measured: column of the measurement.
        predicted: column of the prediction.
        form: a value as text, with its unit.
        band: columns of the ends of the measurement's interval, if it has one.
    """

    title: str
    measured: str
    predicted: str
    form: Callable[[float], str]
    band: tuple[str, ...] = ()


TIME = Quantity(
    "Time of a training step against batch N",
    measured="median_ms",
    predicted="predicted_ms",
    form=style.duration,
    band=("p20_ms", "p80_ms"),
)


def draw(records: pd.DataFrame) -> Figure:
    """Median time of a step with its 20th to 80th percentile, and its prediction.

    Args:
        records: records of a run with several batches, such as the scaling suite.

    Raises:
        ValueError: no step was measured at two batches.
    """
    return against_batch(records, TIME)


def against_batch(records: pd.DataFrame, quantity: Quantity) -> Figure:
    """A quantity of a step against the batch, on logarithmic axes.

    Raises:
        ValueError: no loss has it at two batches of the same D.
    """
    rows = _several_batches(style.steps(records), quantity)
    dims = sorted(rows["dim"].unique())
    places = list(itertools.product(sorted(rows["panel"].unique()), dims))
    titles = [f"{loss}, D = {dim}" for loss, dim in places]
    figure, axes = style.panels(titles, len(dims), 1.6, sharex=True, sharey="row")
    looks = style.looks(rows["line"])
    for (loss, dim), axis in zip(places, axes, strict=True):
        _panel(axis, rows[(rows["panel"] == loss) & (rows["dim"] == dim)], quantity, looks)
    style.label(axes, len(dims), "batch N")
    style.head(figure, quantity.title, rows)
    style.legend(figure, _handles(rows, quantity, looks))
    return figure


def _several_batches(rows: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """Those of panels with two points or more; the values as floats."""
    names = (quantity.measured, quantity.predicted, *quantity.band)
    rows = rows.assign(**{name: style.numbers(rows, name) for name in names})
    measured = rows[rows[quantity.measured].notna()]
    batches = measured.groupby(PANEL)["loss_batch"].nunique()
    shown = pd.MultiIndex.from_frame(rows[PANEL]).isin(batches[batches > 1].index)
    if not shown.any():
        raise ValueError("no step was measured at two batches; run lossbench run --suite scaling")
    return rows[shown]


def _panel(
    axis: Axes, rows: pd.DataFrame, quantity: Quantity, looks: Mapping[str, style.Look]
) -> None:
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    style.log_ticks(axis.xaxis, 2, "{:.0f}".format)
    style.log_ticks(axis.yaxis, 10, quantity.form)
    for line, look in looks.items():
        of_line = rows[rows["line"] == line].drop_duplicates("loss_batch", keep="last")
        of_line = of_line.set_index("loss_batch").sort_index()
        measured = of_line[of_line[quantity.measured].notna()]
        axis.plot(measured[quantity.measured], label=line, **look)
        if quantity.band:
            low, high = (measured[name] for name in quantity.band)
            axis.fill_between(low.index, low, high, color=look["color"], alpha=0.2, linewidth=0)
        predicted = of_line[quantity.predicted].dropna()
        axis.plot(predicted, label=f"{line} predicted", **(look | PREDICTED))
    for batch in _published(rows):
        axis.axvline(batch, label="published", **PUBLISHED)


def _published(rows: pd.DataFrame) -> set[int]:
    """Batches at which arXiv:2606.08332, which prints no time, counts losses of these rows."""
    printed = published.read("efficiency_smi_table2").set_index("loss")["gather_layer"]
    counted_at = printed.map({"yes": BATCH, "no": BATCH // WORLD})
    usual = rows[(rows["dim"] == DIM) & (rows["variant"] == "")]
    measured = usual.groupby("loss")["loss_batch"].agg(["min", "max"]).join(counted_at, how="inner")
    batches = measured["gather_layer"]
    return set(batches[batches.between(measured["min"], measured["max"])])


def _handles(
    rows: pd.DataFrame, quantity: Quantity, looks: Mapping[str, style.Look]
) -> list[Artist]:
    handles: list[Artist] = [*style.keys(looks)]
    if quantity.band:
        handles.append(Patch(color=style.GREY, alpha=0.3, label="p20 to p80"))
    if rows[quantity.predicted].notna().any():
        handles.append(Line2D([], [], color=style.GREY, marker="o", label="predicted", **PREDICTED))
    if _published(rows):
        handles.append(Line2D([], [], label="published shape", **PUBLISHED))
    return handles
