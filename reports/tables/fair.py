"""Every loss at its best implementation, like for like: at the published shape, or any other."""

from collections.abc import Sequence

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
from lossbench.reports.tables.efficiency import LAYOUTS, is_published

SHAPE = ["machine", "distribution", "dtype", "inputs", "world", "loss_batch", "dim"]


def build(records: pd.DataFrame) -> Sequence[Section]:
    """One section for each layout, machine and shape.

    Args:
        records: records measured with ``--paired``. Where some have the published shape, as those
            of the efficiency suite, they alone are shown.

    Raises:
        ValueError: no record of a step of a loss alone.
    """
    alone = (records["setting"] == "") & records["distribution"].isin(LAYOUTS)
    steps = alone & (records["pass"] == "step") & (records["contender"] == "")
    rows = records[steps & is_published(records)]
    rows = rows if len(rows) else records[steps]
    if rows.empty:
        raise ValueError("no step of a loss alone; run lossbench run --paired first")
    groups = rows.groupby(SHAPE, sort=False)
    return [_section(of_layout) for _, of_layout in groups]


def _section(rows: pd.DataFrame) -> Section:
    best = pd.concat([_best(of_loss) for _, of_loss in rows.groupby(["loss", "variant"])])
    published = best[(best["loss"] == "smi") & (best["variant"] == "")]
    smi = published.iloc[0] if len(published) else None
    ratios = compare(best, dict.fromkeys(best.index, smi))
    itself = best.index == (smi.name if smi is not None else None)
    frame = pd.DataFrame(
        {
            "loss": each(best, loss_title),
            "implementation": each(best, implementation),
            "gmacs": best["gmacs"],
            "gmacs_to_smi": best["gmacs"] / (smi["gmacs"] if smi is not None else float("nan")),
            "median_ms": best["median_ms"],
            "ratio": ratios["ratio"].mask(itself),
            "interval": each(ratios, interval).mask(itself),
            "verdict": ratios["verdict"].mask(itself),
            "peak_bytes": best["peak_bytes"],
        }
    )
    columns = {
        "loss": Column("loss", left=True),
        "implementation": Column("best", left=True),
        "gmacs": Column("GMACs", gmacs),
        "gmacs_to_smi": Column("to SMI", "{:.2f}x".format),
        "median_ms": Column("ms", milliseconds),
        "ratio": Column("to SMI", "{:.3g}x".format),
        "interval": Column("95%"),
        "verdict": Column("verdict", left=True),
        "peak_bytes": Column("peak MB", megabytes),
    }
    first = rows.iloc[0]
    notes = [
        f"{first['machine']}. A training step, D = {first['dim']}; {_scope(first)}. "
        "Each loss at the fastest implementation measured here.",
        threshold(rows),
        *busy.note(rows),
        *arithmetic.note(best),
    ]
    if best["median_ms"].isna().any():
        notes.append("- was counted but not measured: the least work counts as best.")
    return Section(f"Fair: every loss at its best, {_layout(first)}", frame, columns, notes)


def _layout(row: pd.Series) -> str:
    if row["world"] > 1:
        batch = f"{row['loss_batch']} gathered" if row["distribution"] == "gather" else ""
        return batch or f"{row['world']} x {row['batch']} local"
    return shape(row)


def _scope(row: pd.Series) -> str:
    if row["world"] == 1:
        return "GMACs, ms and peak MB of one device"
    return (
        f"GMACs of all {row['world']} devices, ms and peak MB of one device's evaluation "
        f"(batch {row['loss_batch']}), without the gather"
    )


def _best(rows: pd.DataFrame) -> pd.DataFrame:
    """The fastest right row; where none was measured, the one with the least work."""
    by = "median_ms" if rows["median_ms"].notna().any() else "gmacs"
    return rows.loc[[rows[by].astype(float).idxmin()]]
