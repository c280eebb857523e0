"""Every way to compute each loss: time, memory and accuracy, the best of each loss marked."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from lossbench.reports import arithmetic, busy
from lossbench.reports.comparison import compare, interval, threshold
from lossbench.reports.naming import (
    each,
    gmacs,
    implementation,
    loss_title,
    megabytes,
    milliseconds,
    shape,
)
from lossbench.reports.section import Column, Section

KINDS = ("random", "aligned", "collapsed")
LOSS = Column("loss", left=True)
WAY = Column("by", left=True)
SHAPE = ["machine", "loss_batch", "dim", "pass", "dtype", "inputs"]


def build(records: pd.DataFrame) -> Sequence[Section]:
    """Sections of the table: for each shape cost, arithmetic, accuracy and compilation.

    Args:
        records: records of a run, measured with ``--paired`` and ``--accuracy``.
    """
    sections = []
    for _, rows in records.groupby(SHAPE, sort=False):
        # the reference first: the others are compared with it
        rows = rows.assign(other=rows["implementation"] != "reference")
        rows = rows.sort_values(["loss", "variant", "other", "implementation"])
        sections.append(_cost(rows))
        sections.append(arithmetic.section(f"Arithmetic: {shape(rows.iloc[0])}", rows))
        sections += [_accuracy(rows, what) for what in ("value", "gradient")]
        sections.append(_compilation(rows))
    return [section for section in sections if len(section.frame)]


def references(rows: pd.DataFrame) -> dict[Any, pd.Series | None]:
    """For each row, the reference of its loss and hyperparameters."""
    found: dict[Any, pd.Series | None] = {}
    for _, same in rows.groupby(["loss", "variant"]):
        reference = same[same["implementation"] == "reference"]
        row = reference.iloc[0] if len(reference) else None
        found.update(dict.fromkeys(same.index, row))
    return found


def _cost(rows: pd.DataFrame) -> Section:
    ours = rows["median_ms"].where(rows["contender"] == "")
    best = ours.groupby([rows["loss"], rows["variant"]]).transform("min")
    ratios = compare(rows, references(rows))
    inverted = ratios.assign(low=1 / ratios["high"], high=1 / ratios["low"])
    itself = rows["implementation"] == "reference"
    frame = pd.DataFrame(
        {
            "loss": each(rows, loss_title),
            "implementation": each(rows, implementation),
            "best": (rows["median_ms"] == best).map({True: "*", False: ""}),
            "gmacs": rows["gmacs"],
            "median_ms": rows["median_ms"],
            "times_faster": (1 / ratios["ratio"]).mask(itself),
            "interval": each(inverted, interval).mask(itself),
            "verdict": ratios["verdict"].mask(itself),
            "peak_bytes": rows["peak_bytes"],
            "status": rows["status"],
        }
    )
    columns = {
        "loss": LOSS,
        "implementation": WAY,
        "best": Column("", left=True),
        "gmacs": Column("GMACs", gmacs),
        "median_ms": Column("ms", milliseconds),
        "times_faster": Column("times faster", "{:.3g}".format),
        "interval": Column("95%"),
        "verdict": Column("verdict", left=True),
        "peak_bytes": Column("peak MB", megabytes),
    }
    if (rows["status"] != "ok").any():
        columns["status"] = Column("status", left=True)
    failed = rows[rows["status"] != "ok"]
    reasons = list(each(failed, _reason))
    first = rows.iloc[0]
    notes = [
        f"{first['machine']}. * the fastest of its loss; times faster than its reference. "
        "GMACs of the pass; MB = 10^6 bytes.",
        threshold(rows),
        *busy.note(rows),
        *arithmetic.note(rows),
        *reasons,
    ]
    return Section(f"Implementations: {shape(first)}", frame, columns, notes)


def _reason(row: pd.Series) -> str:
    return f"{loss_title(row)} {implementation(row)}: {row['reason'].rstrip('.')}."


def _accuracy(rows: pd.DataFrame, what: str) -> Section:
    measured = rows[rows[f"accuracy_random_{what}_error"].notna()]
    frame = pd.DataFrame(
        {
            "loss": each(measured, loss_title),
            "implementation": each(measured, implementation),
        }
    )
    columns = {"loss": LOSS, "implementation": WAY}
    for kind in KINDS:
        error = f"accuracy_{kind}_{what}_error"
        for name, header, form in (
            (error, kind, "{:.0e}"),
            (f"{error}_to_reference", "to ref", "{:.2g}x"),
        ):
            frame[name] = measured[name].astype(float)
            columns[name] = Column(header, form.format)
    notes = [
        f"Relative error of the {what} against the fp64 reference, and how many times that of the "
        "reference in the same dtype (- where the reference happens to be exact)."
    ]
    return Section(f"Error of the {what}: {shape(rows.iloc[0])}", frame, columns, notes)


def _compilation(rows: pd.DataFrame) -> Section:
    """What compiling costs, and after how many calls it is paid back."""
    compiled = rows[(rows["implementation"] == "compiled") & rows["median_ms"].notna()]
    base = references(rows)
    eager = {index: row["median_ms"] for index, row in base.items() if row is not None}
    saved = compiled.index.to_series().map(eager).astype(float) - compiled["median_ms"]
    frame = pd.DataFrame(
        {
            "loss": each(compiled, loss_title),
            "first_call_s": compiled["first_call_ms"].astype(float) / 1e3,
            "saved_ms": saved.astype(float),
        }
    )
    steps = 1e3 * frame["first_call_s"] / frame["saved_ms"]
    frame["break_even"] = steps.where(frame["saved_ms"] > 0)
    columns = {
        "loss": LOSS,
        "first_call_s": Column("first call, s", "{:.1f}".format),
        "saved_ms": Column("saves ms a call", "{:.2f}".format),
        "break_even": Column("paid back after calls", "{:,.0f}".format),
    }
    notes = ["The first call of compiled compiles; - where it never pays."]
    return Section(f"Compilation: {shape(rows.iloc[0])}", frame, columns, notes)
