"""Achieved speed of the matrix products against arithmetic intensity, below calibrated ceilings."""

import warnings
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lossbench.bench.records.runfile import RunFileWarning
from lossbench.reports import style

PRECISIONS = {"ieee": "float32", "tf32": "tf32", "bf16": "bfloat16"}
"""What a calibration calls the precisions of products."""
DASHES = {"float32": "-", "tf32": "--", "bfloat16": "-.", "float16": ":"}
MEMORIES = {"main memory": "#888888", "fastest cache": "#c4c4c4"}


def draw(records: pd.DataFrame) -> Figure:
    """A panel for each loss, in it a point for each implementation, N and D of a training step.

    A FLOP is one of the two of each multiply-add of the matrix products, a byte one of those that
    all operations read and write. A roof that a result beats is raised to it.

    Args:
        records: records of a run with a calibration and with bytes counted.

    Raises:
        ValueError: the run has no calibration, or no step with its bytes counted.
    """
    rows = _points(records)
    places = list(rows.groupby("panel"))
    columns = style.columns(len(places))
    figure, axes = style.panels(
        [str(panel) for panel, _ in places], columns, 1.9, sharex=True, sharey=True
    )
    looks, limits = style.looks(rows["line"], linestyle=""), _limits(rows)
    for (_, equal), axis in zip(places, axes, strict=True):
        _ceilings(axis, equal, limits["xlim"])
        _speeds(axis, equal, looks)
        axis.set(xscale="log", yscale="log", **limits)
        style.log_ticks(axis.xaxis, 10, style.plain, subs=(1, 3))
        style.log_ticks(axis.yaxis, 10, style.plain, subs=(1, 3))
    style.label(axes, columns, "FLOP per byte", "GFLOP/s")
    style.head(figure, "Speed of the products of a training step: a point for each N and D", rows)
    style.legend(figure, [*style.keys(looks), *_keys(rows)])
    return figure


def _points(records: pd.DataFrame) -> pd.DataFrame:
    """Measured steps with their intensity (FLOP a byte) and speeds (GFLOP/s).

    Those of less than one FLOP or byte are on no logarithmic axis: they are left out, aloud.
    """
    rows = style.steps(records)
    if "calibration" not in rows or rows["calibration"].isna().all():
        raise ValueError("no calibration in the run; measure it anew with lossbench run")
    rows = rows[rows["calibration"].notna()]
    flops = 2e9 * style.numbers(rows, "gmacs") / rows["evaluations"]
    moved = style.numbers(rows, "moved_bytes")
    nothing = (flops < 1) | (moved < 1)
    if nothing.any():
        said = f"left out {nothing.sum()} points of less than one FLOP or byte"
        warnings.warn(f"figure roofline: {said}", RunFileWarning, stacklevel=2)
    rows = rows.assign(intensity=(flops / moved).mask(nothing))
    for speed, time in (("speed", "median_ms"), ("fastest", "p20_ms"), ("slowest", "p80_ms")):
        rows[speed] = flops / style.numbers(rows, time) / 1e6
    rows = rows.dropna(subset=["intensity", "speed"])
    if rows.empty:
        raise ValueError("no step with its bytes counted; measure it anew with lossbench run")
    roofs = [_raised(own) for _, own in rows.groupby("machine")]
    return rows.assign(roofs=pd.concat(roofs))


def _raised(rows: pd.DataFrame) -> "pd.Series[Any]":
    """The calibrated roofs of a machine, each raised to what was faster, for each of its rows."""
    calibrated: dict[str, float] = rows["calibration"].iloc[0]["gemm_gflops"]
    used = [_precision(row, calibrated) for _, row in rows.iterrows()]
    fastest = rows["fastest"].groupby(used).max()
    roofs = {name: max(speed, fastest.get(name, speed)) for name, speed in calibrated.items()}
    return pd.Series([roofs] * len(rows), index=rows.index)


def _precision(row: "pd.Series[Any]", calibrated: Mapping[str, float]) -> str:
    """Of a row's products; what chooses its precision itself may choose the fastest."""
    usual = "tf32" if row["dtype"] == "float32" and "tf32" in calibrated else row["dtype"]
    return PRECISIONS.get(row["products"], usual)


def _compute(rows: pd.DataFrame) -> dict[str, float]:
    """GFLOP/s of the precisions that rows of one machine use."""
    speeds: dict[str, float] = rows["roofs"].iloc[0]
    used = {*rows["dtype"], *rows["products"].map(PRECISIONS)}
    used |= {"tf32"} if "float32" in used else set()
    return {name: speed for name, speed in speeds.items() if name in used} or speeds


def _memories(rows: pd.DataFrame) -> dict[str, float]:
    """GB/s of main memory and of the fastest cache of one machine, as calibrated there."""
    bandwidths = [bandwidth for _, bandwidth in rows["calibration"].iloc[0]["copy_gb_per_s"]]
    return dict(zip(MEMORIES, (bandwidths[-1], max(bandwidths)), strict=True))


def _look(name: str) -> style.Look:
    """How a ceiling is drawn."""
    if name in MEMORIES:
        return {"color": MEMORIES[name], "linewidth": 1.0}
    return {"color": "black", "linestyle": DASHES.get(name, "-"), "linewidth": 1.0}


def _limits(rows: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Limits of the axes, wide enough for all points, roofs and ridges."""
    machines = [each for _, each in rows.groupby("machine")]
    roofs = [roof for each in machines for roof in _compute(each).values()]
    ridges = [
        roof / bandwidth
        for each in machines
        for roof in _compute(each).values()
        for bandwidth in _memories(each).values()
    ]
    x, y = [*rows["intensity"], *ridges], [*rows["slowest"], *rows["fastest"], *roofs]
    return {"xlim": (min(x) / 2, max(x) * 2), "ylim": (min(y) / 1.5, max(y) * 1.5)}


def _ceilings(axis: Axes, rows: pd.DataFrame, limits: tuple[float, float]) -> None:
    """The slope of each memory up to the highest roof, each roof from the fastest memory on."""
    compute, memories = _compute(rows), _memories(rows)
    (left, right), top = limits, max(compute.values())
    for name, bandwidth in memories.items():
        axis.plot((left, top / bandwidth), (bandwidth * left, top), label=name, **_look(name))
    for name, speed in compute.items():
        ridge = speed / max(memories.values())
        axis.plot((ridge, right), (speed, speed), label=name, **_look(name))


def _speeds(axis: Axes, rows: pd.DataFrame, looks: Mapping[str, style.Look]) -> None:
    for line, look in looks.items():
        points = rows[rows["line"] == line]
        speed = points["speed"]
        interval = np.array([speed - points["slowest"], points["fastest"] - speed])
        axis.errorbar(points["intensity"], speed, interval, elinewidth=0.6, label=line, **look)


def _keys(rows: pd.DataFrame) -> list[Line2D]:
    """The ceilings for the legend, each with its values on the machines in turn."""
    found = defaultdict(list)
    for _, equal in rows.groupby("machine", sort=False):
        for ceilings, unit in ((_compute(equal), "GFLOP/s"), (_memories(equal), "GB/s")):
            for name, value in ceilings.items():
                calibrated = equal["calibration"].iloc[0]["gemm_gflops"].get(name, value)
                said = " (raised to a result)" if value > calibrated else ""
                found[name, unit].append(f"{value:,.0f}{said}")
    return [
        Line2D([], [], label=f"{name}: {' and '.join(values)} {unit}", **_look(name))
        for (name, unit), values in found.items()
    ]
