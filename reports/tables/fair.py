"""The efficiency table with every loss at its best implementation, gathered and local."""

from collections.abc import Sequence

import pandas as pd

from lossbench.reports import busy
from lossbench.reports.comparison import compare, interval, threshold
from lossbench.reports.naming import each, implementation, loss_title, megabytes, milliseconds
from lossbench.reports.section import Column, Section
from lossbench.reports.tables.efficiency import DIM, LAYOUTS, WORLD, published_shape


def build(records: pd.DataFrame) -> Sequence[Section]:
    """One section for each layout and machine.

    Args:
        records: records of the efficiency suite, measured with ``--paired``.

    Raises:
        ValueError: no record has the published shape.
    """
    rows = published_shape(records)
    rows = rows[(rows["pass"] == "step") & (rows["contender"] == "")]
    groups = rows.groupby(["machine", "distribution", "dtype", "inputs"], sort=False)
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
        "gmacs": Column("GMACs", "{:,.2f}".format),
        "gmacs_to_smi": Column("to SMI", "{:.2f}x".format),
        "median_ms": Column("ms", milliseconds),
        "ratio": Column("to SMI", "{:.3g}x".format),
        "interval": Column("95%"),
        "verdict": Column("verdict", left=True),
        "peak_bytes": Column("peak MB", megabytes),
    }
    first = rows.iloc[0]
    layout = LAYOUTS[first["distribution"]]
    notes = [
        f"{first['machine']}. A training step, D = {DIM}; GMACs of all {WORLD} devices, ms and "
        f"peak MB of one device's evaluation (batch {first['loss_batch']}), without the gather. "
        "Each loss at the fastest implementation measured here.",
        threshold(rows),
        *busy.note(rows),
    ]
    if best["median_ms"].isna().any():
        notes.append("- was counted but not measured: the least work counts as best.")
    return Section(f"Fair: every loss at its best, {layout}", frame, columns, notes)


def _best(rows: pd.DataFrame) -> pd.DataFrame:
    """The fastest right row; where none was measured, the one with the least work."""
    by = "median_ms" if rows["median_ms"].notna().any() else "gmacs"
    return rows.loc[[rows[by].astype(float).idxmin()]]
