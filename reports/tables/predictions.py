"""What was predicted before it was measured: times, their order, peak memory."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from lossbench.reports import busy
from lossbench.reports.section import Column, Section

SHAPE = ["loss", "variant", "loss_batch", "dim", "dtype", "pass", "inputs", "machine"]
APART = 1.1
"""Two times that differ by less have no order that could be predicted."""


def build(records: pd.DataFrame) -> Sequence[Section]:
    """One row for each implementation, and one for all.

    Args:
        records: records with predictions, which runs of this version have.

    Raises:
        ValueError: no record that was measured has a prediction.
    """
    columns = ["predicted_ms", "predicted_peak_bytes", "median_ms", "peak_bytes"]
    known = records[(records["status"] == "ok") & records[columns].notna().all(axis=1)]
    known = known[(known["contender"] == "") & (known["implementation"] != "auto")]
    if known.empty:
        raise ValueError("no measured record has a prediction; measure anew with lossbench run")
    rows = [
        {"implementation": name, **_agreement(own), "order": None}
        for name, own in known.groupby("implementation")
    ]
    rows.append({"implementation": "all", **_agreement(known), "order": _order(known)})
    shown = {
        "implementation": Column("by", left=True),
        "cases": Column("cases", "{:,}".format),
        "time": Column("ms / measured", "{:.2f}".format),
        "rank": Column("rank correlation", "{:.3f}".format),
        "order": Column("order", "{:.0%}".format),
        "peak": Column("worst peak error", "{:.1%}".format),
    }
    notes = [
        f"{'; '.join(known['machine'].unique())}. Predicted from what each case does, operation by "
        "operation, and the ceilings that were calibrated before the run. ms / measured: geometric "
        "mean, below 1 because no ceiling is quite reached. Rank correlation: Spearman's, over all "
        "cases. Order: of two implementations of the same loss and shape whose times differ by "
        f"more than {APART - 1:.0%}, how often the faster one was predicted.",
        *busy.note(known),
    ]
    return [Section("Predicted and measured", pd.DataFrame(rows), shown, notes)]


def _agreement(rows: pd.DataFrame) -> dict[str, Any]:
    predicted, measured = (rows[name].astype(float) for name in ("predicted_ms", "median_ms"))
    peaks = rows["predicted_peak_bytes"].astype(float) / rows["peak_bytes"].astype(float)
    return {
        "cases": len(rows),
        "time": float(np.exp(np.log(predicted / measured).mean())),
        "rank": float(spearmanr(predicted, measured).statistic) if len(rows) > 2 else None,
        "peak": float((peaks - 1).abs().max()),
    }


def _order(rows: pd.DataFrame) -> float | None:
    """Share of pairs of implementations that were predicted in the right order."""
    right = []
    for _, own in rows.groupby(SHAPE):
        pairs = zip(own["median_ms"].astype(float), own["predicted_ms"].astype(float), strict=True)
        for (a, told_a), (b, told_b) in itertools.combinations(pairs, 2):
            if max(a / b, b / a) > APART:
                right.append((a < b) == (told_a < told_b))
    return sum(right) / len(right) if right else None
