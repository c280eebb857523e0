"""Ratios between records, from times that were sampled in the same rounds."""

from typing import Any

import pandas as pd

from lossbench.bench.comparing.ratios import Ratio, by_process, digits, ratio


def time_ratio(row: pd.Series, baseline: pd.Series | None) -> Ratio | None:
    """Time of ``row`` over that of ``baseline``; None unless the two were timed in turn."""
    if baseline is None or not _is_paired(row) or not _is_paired(baseline):
        return None
    if row["pair_group"] != baseline["pair_group"]:
        return None
    return ratio(by_process(row.to_dict()), by_process(baseline.to_dict()))


def compare(rows: pd.DataFrame, baselines: dict[Any, pd.Series | None]) -> pd.DataFrame:
    """Ratio, interval and verdict of each row to its baseline.

    Args:
        rows: records.
        baselines: index of a row -> the record it is compared with.

    Returns:
        Columns ``ratio``, ``low``, ``high`` and ``verdict``, missing where there is no pair.
    """
    found: list[tuple[object, ...]] = []
    for index, row in rows.iterrows():
        of_row = time_ratio(row, baselines.get(index))
        if of_row is None:
            found.append((None, None, None, None))
        else:
            said = of_row.verdict(row["pair_noise"])
            found.append((of_row.value, of_row.low, of_row.high, said))
    return pd.DataFrame(found, index=rows.index, columns=["ratio", "low", "high", "verdict"])


def interval(row: pd.Series) -> str | None:
    """The 95% interval in words, such as ``1.02-1.07``."""
    return None if pd.isna(row["low"]) else f"{digits(row['low'])}-{digits(row['high'])}"


def threshold(rows: pd.DataFrame) -> str:
    """What the notes of a table say of its ratios."""
    noise = rows["pair_noise"].dropna()
    if noise.empty:
        return "Times were not taken in turn: no ratio is shown; run lossbench run --paired."
    processes = _span(rows["pair_processes"].dropna(), "{:.0f}")
    return (
        f"Ratios: times taken in turn (fresh processes: {processes}), bootstrap 95% interval; "
        f"nothing is claimed below the A/A threshold, {_span(noise, '{:.1%}')} here."
    )


def _span(values: pd.Series, form: str) -> str:
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low} to {high}"


def _is_paired(row: pd.Series) -> bool:
    return isinstance(row.get("pair_group"), str) and isinstance(row.get("samples_ms"), list)
