"""Losses of other libraries: what they equal, and how long they take beside ours."""

from collections.abc import Sequence

import pandas as pd

from lossbench.reports import busy
from lossbench.reports.comparison import compare, interval, threshold
from lossbench.reports.naming import each, loss_title, megabytes, milliseconds, shape
from lossbench.reports.section import Column, Section
from lossbench.reports.tables.implementations import LOSS, SHAPE


def build(records: pd.DataFrame) -> Sequence[Section]:
    """One section for each shape.

    Args:
        records: records of a run with ``--contender`` and ``--paired``.

    Raises:
        ValueError: no contender was measured.
    """
    groups = [rows for _, rows in records.groupby(SHAPE, sort=False)]
    sections = [_section(rows) for rows in groups if rows["contender"].astype(bool).any()]
    if not sections:
        raise ValueError("no contender was measured; run lossbench run --contender ...")
    return sections


def _section(rows: pd.DataFrame) -> Section:
    """What contenders are, by themselves and against ours."""
    contenders = rows[rows["contender"].astype(bool)]
    best = rows[~rows["contender"].astype(bool)].groupby(["loss", "variant"])["median_ms"].idxmin()
    baselines = {
        index: rows.loc[best[(row["loss"], row["variant"])]]
        for index, row in contenders.iterrows()
        if pd.notna(best.get((row["loss"], row["variant"])))
    }
    ratios = compare(contenders, baselines)
    frame = pd.DataFrame(
        {
            "name": contenders["implementation"],
            "version": contenders["contender_version"],
            "loss": each(contenders, loss_title),
            "finding": contenders["parity"].where(
                contenders["status"] == "ok", contenders["reason"]
            ),
            "median_ms": contenders["median_ms"],
            "ratio": ratios["ratio"],
            "interval": each(ratios, interval),
            "verdict": ratios["verdict"],
            "peak_bytes": contenders["peak_bytes"],
            "source": contenders["contender"],
        }
    )
    columns = {
        "name": Column("by", left=True),
        "version": Column("", left=True),
        "loss": LOSS,
        "finding": Column("finding", left=True),
        "median_ms": Column("ms", milliseconds),
        "ratio": Column("to our best", "{:.3g}x".format),
        "interval": Column("95%"),
        "verdict": Column("verdict", left=True),
        "peak_bytes": Column("peak MB", megabytes),
    }
    notes = [
        f"{rows.iloc[0]['machine']}. Finding: what value and gradient equal, over several inputs, "
        "before they were timed. To our best: to our fastest implementation of the same loss.",
        threshold(rows),
        *busy.note(rows),
    ]
    return Section(f"Third parties: {shape(rows.iloc[0])}", frame, columns, notes)
