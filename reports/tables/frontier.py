"""The largest batch that fits in a device's memory, found and predicted."""

from collections.abc import Sequence

import pandas as pd

from lossbench.reports.naming import implementation, loss_title
from lossbench.reports.section import Column, Section

KIND = ["machine", "memory_limit_bytes", "loss", "variant", "implementation", "options", "products"]


def build(records: pd.DataFrame) -> Sequence[Section]:
    """One row for each kind of case that was bisected.

    Args:
        records: records of frontier runs.

    Raises:
        ValueError: no record is a trial of a frontier.
    """
    trials = records[records["memory_limit_bytes"].notna()]
    if trials.empty:
        raise ValueError("no trial of a frontier; run lossbench run --frontier first")
    rows = [_row(own) for _, own in trials.groupby([*KIND, "dim", "dtype", "pass"], sort=False)]
    columns = {
        "loss": Column("loss", left=True),
        "implementation": Column("by", left=True),
        "memory_gb": Column("GB", "{:.3g}".format),
        "dim": Column("D", "{:,}".format),
        "pass": Column("pass", left=True),
        "predicted": Column("predicted N", "{:,.0f}".format),
        "largest": Column("largest N", "{:,.0f}".format),
        "smallest": Column("too large", "{:,.0f}".format),
    }
    notes = [
        f"{'; '.join(trials['machine'].unique())}. Inputs included; GB = 10^9 bytes. The largest N "
        "that fitted, and the smallest that did not. What libraries take for themselves is not "
        "predicted."
    ]
    return [Section("Largest batch before out-of-memory", pd.DataFrame(rows), columns, notes)]


def _row(own: pd.DataFrame) -> dict[str, object]:
    first = own.iloc[0]
    batches = {status: own.loc[own["status"] == status, "loss_batch"] for status in ("ok", "oom")}
    return {
        "loss": loss_title(first),
        "implementation": implementation(first),
        "memory_gb": first["memory_limit_bytes"] / 1e9,
        "dim": first["dim"],
        "pass": first["pass"],
        "predicted": first["predicted_largest_batch"],
        "largest": batches["ok"].max(),
        "smallest": batches["oom"].min(),
    }
