"""Fused kernels beside every other way to compute a loss, and what they are to reach on a GPU."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lossbench.reports import busy
from lossbench.reports.comparison import compare, threshold
from lossbench.reports.naming import (
    each,
    implementation,
    loss_title,
    megabytes,
    milliseconds,
    shape,
)
from lossbench.reports.section import Column, Section

SHAPE = ["machine", "loss", "variant", "loss_batch", "dim", "pass", "dtype", "inputs"]
FLOOR_BATCH = 2048
"""From this batch on the products alone should fill the time ..."""
OF_FLOOR = 0.9
"""... to this share."""
TO_EAGER = 1.5
"""Times faster than eager code of the same precision."""
LARGE, LARGE_BYTES = (65536, 1024), 10**9
"""Where eager code needs over 50 GB, and what a fused kernel may need."""


def build(records: pd.DataFrame) -> Sequence[Section]:
    """One section for each loss and shape that fused kernels were tried on.

    Args:
        records: records of the gpu suite.

    Raises:
        ValueError: no record is of a fused kernel.
    """
    sections = []
    for _, rows in records.groupby(SHAPE, sort=False):
        if (rows["implementation"] == "triton").any():
            sections.append(_section(rows.sort_values(["implementation", "products", "options"])))
    if not sections:
        raise ValueError("no record of implementation triton; run lossbench run --suite gpu first")
    return sections


def _section(rows: pd.DataFrame) -> Section:
    best = _fastest(rows[rows["implementation"] == "triton"])
    ratios = compare(rows, dict.fromkeys(rows.index, best))
    itself = rows.index == (None if best is None else best.name)
    milliseconds_ = rows["median_ms"].astype(float)
    frame = pd.DataFrame(
        {
            "implementation": each(rows, implementation),
            "median_ms": rows["median_ms"],
            "tflops": _minimal_macs(rows) * 2 / milliseconds_ / 1e9,
            "of_floor": rows["floor_ms"].astype(float) / milliseconds_,
            "ratio": ratios["ratio"].mask(itself),
            "verdict": ratios["verdict"].mask(itself),
            "gradient_error": rows["gradient_error"],
            "energy_mj": rows["energy_mj"],
            "peak_bytes": rows["peak_bytes"],
            "status": rows["status"],
        }
    )
    columns = {
        "implementation": Column("by", left=True),
        "median_ms": Column("ms", milliseconds),
        "tflops": Column("TFLOP/s", "{:,.3g}".format),
        "of_floor": Column("of floor", "{:.0%}".format),
        "ratio": Column("to kernel", "{:.3g}x".format),
        "verdict": Column("verdict", left=True),
        "gradient_error": Column("error", "{:.0e}".format),
        "energy_mj": Column("mJ", "{:,.3g}".format),
        "peak_bytes": Column("peak MB", megabytes),
    }
    shown = {name: column for name, column in columns.items() if frame[name].notna().any()}
    if (rows["status"] != "ok").any():
        shown["status"] = Column("status", left=True)
    first = rows.iloc[0]
    notes = [
        f"{first['machine']}. TFLOP/s of the least work, which the fused kernels do: padding, "
        "recomputation and the redundant products of the others do not count. Of floor: the "
        "library's time for those products alone over the time. To kernel: time over that of the "
        "fastest fused kernel. Error: of the gradient, against fp64. MB = 10^6 bytes.",
        threshold(rows),
        *busy.note(rows),
        *_targets(rows, best),
        *_reasons(rows),
        *_throttled(rows),
    ]
    return Section(f"Kernels: {loss_title(first)}, {shape(first)}", frame, shown, notes)


def _minimal_macs(rows: pd.DataFrame) -> float:
    """Multiply-adds that the fused kernels count."""
    return float(rows.loc[rows["implementation"] == "triton", "gmacs"].iloc[0]) * 1e9


def _fastest(rows: pd.DataFrame) -> pd.Series | None:
    right = rows[rows["median_ms"].notna()]
    return right.iloc[int(right["median_ms"].astype(float).argmin())] if len(right) else None


def _targets(rows: pd.DataFrame, best: pd.Series | None) -> list[str]:
    """What the fastest fused kernel is to reach, and whether it did."""
    if best is None:
        return ["No fused kernel was measured here: no target is met or missed."]
    found = []
    if rows["loss_batch"].iloc[0] >= FLOOR_BATCH and pd.notna(best["floor_ms"]):
        share = best["floor_ms"] / best["median_ms"]
        found.append((f"{share:.0%} of the floor, target {OF_FLOOR:.0%}", share >= OF_FLOOR))
    eager = _fastest(rows[(rows["implementation"] == "reference") & (rows["products"] == "bf16")])
    if eager is not None:
        times = eager["median_ms"] / best["median_ms"]
        said = f"{times:.3g}x faster than eager bf16, target {TO_EAGER}x"
        found.append((said, times >= TO_EAGER))
    tuned = rows[rows["options"].str.contains("max-autotune")]
    compiled = _fastest(tuned)
    if compiled is not None:
        times = compiled["median_ms"] / best["median_ms"]
        found.append((f"{times:.3g}x faster than max-autotune, target over 1x", times > 1))
    if (best["loss_batch"], best["dim"]) == LARGE:
        said = f"{megabytes(best['peak_bytes'])} MB, target under {megabytes(LARGE_BYTES)}"
        found.append((said, best["peak_bytes"] < LARGE_BYTES))
    return [f"{implementation(best)}: {said}: {'met' if met else 'MISSED'}." for said, met in found]


def _reasons(rows: pd.DataFrame) -> list[str]:
    failed = rows[rows["status"] != "ok"]
    return [f"{implementation(row)}: {_one_line(row['reason'])}." for _, row in failed.iterrows()]


def _throttled(rows: pd.DataFrame) -> list[str]:
    """Which times are not those of the GPU at its full clocks."""
    slowed = rows[rows["throttled"].fillna("") != ""]
    return [
        f"{implementation(row)}: clocks were lowered ({row['throttled']})."
        for _, row in slowed.iterrows()
    ]


def _one_line(reason: Any) -> str:
    return str(reason).rstrip(".")
