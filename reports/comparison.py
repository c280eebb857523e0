"""Ratios between records, from times that were sampled in the same rounds."""

from typing import Any

import pandas as pd

from lossbench.bench.comparing.moderation import Noise
from lossbench.bench.comparing.ratios import (
    FLOOR,
    Ratio,
    claimed,
    digits,
    is_paired,
    looks_at,
    ratio_of,
)


def time_ratio(row: pd.Series, baseline: pd.Series | None) -> Ratio | None:
    """Time of ``row`` over that of ``baseline``; None unless the two were timed in turn."""
    if baseline is None or not is_paired(row) or not is_paired(baseline):
        return None
    if row["pair_group"] != baseline["pair_group"]:
        return None
    return ratio_of(row.to_dict(), baseline.to_dict(), row["noise"])


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
        said = time_ratio(row, baselines.get(index))
        if said is None:
            found.append((None, None, None, None))
        else:
            found.append((said.value, said.low, said.high, said.verdict))
    return pd.DataFrame(found, index=rows.index, columns=["ratio", "low", "high", "verdict"])


def interval(row: pd.Series) -> str | None:
    """The 95% interval in words, such as ``1.02-1.07``."""
    return None if pd.isna(row["low"]) else f"{digits(row['low'])}-{digits(row['high'])}"


def threshold(rows: pd.DataFrame) -> str:
    """What the notes of a table say of its ratios."""
    timed = rows[[is_paired(row) for row in rows.to_dict("records")]]
    if timed.empty:
        return "Times were not taken in turn: no ratio is shown; run lossbench run --paired."
    processes = _span(timed["pair_processes"], "{:.0f}")
    return (
        f"Ratios: times taken in turn (fresh processes: {processes}), 95% interval. {spread(timed)}"
    )


def spread(rows: pd.DataFrame) -> str:
    """How noisy ratios of rounds are, in a sentence, and from where on a difference is claimed."""
    noise: list[Noise] = list(dict.fromkeys(rows["noise"]))
    scales = pd.Series([each.scale for each in noise])
    sure = pd.Series([claimed(looks_at(row)) for row in rows.to_dict("records")])
    return (
        f"Ratios vary by {_span(scales, '{:.1%}')} from round to round; a difference is claimed "
        f"where all of the interval of {_span(sure, '{:.1%}')} confidence is beyond {FLOOR:.0%}."
    )


def _span(values: pd.Series, form: str) -> str:
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low} to {high}"
