"""What tables say of times that were taken beside other work, and which are no ground for a claim.

The facts are in the records: how many samples stayed disturbed, what a test of the machine showed
and whether all calls became slower while they were timed.
"""

from collections.abc import Sequence

import pandas as pd

from lossbench.bench.comparing.drift import is_drift
from lossbench.bench.measuring import spin
from lossbench.bench.measuring.disturbance import count_disturbed, is_mostly

FIELDS = ("disturbed", "drift", *(f"{spin.PREFIX}{name}" for name in spin.NAMES))
"""Of a record."""


def is_busy(rows: pd.DataFrame) -> pd.Series:
    """Which records hold times of a busy or changing machine, that no gate should fail on.

    Args:
        rows: records, with ``samples_ms`` and ``FIELDS``, missing where nothing is known.
    """
    return pd.Series([_is_busy(row) for _, row in rows.iterrows()], rows.index, dtype=bool)


def is_lost(rows: pd.DataFrame) -> pd.Series:
    """Which records hold disturbed samples alone, from which nothing is claimed."""
    return rows["disturbed"].ge(1) & (rows["disturbed"] == rows["samples_ms"].map(_length))


def note(rows: pd.DataFrame) -> list[str]:
    """A sentence for the footer of a table that shows times of these records, if one is due."""
    known = rows[rows["samples_ms"].notna()]
    said = [*_disturbed(known), *_tested(known), *_drifted(known)]
    return [f"Beside other work: {'; '.join(said)}."] if said else []


def _is_busy(row: "pd.Series") -> bool:
    found = spin.of(row.to_dict(), spin.PREFIX)
    many = pd.notna(row["disturbed"]) and is_mostly(row["disturbed"], _length(row["samples_ms"]))
    drifts = pd.notna(row["drift"]) and is_drift(row["drift"])
    return bool(many or drifts or (found and found.signs))


def _disturbed(rows: pd.DataFrame) -> list[str]:
    told = rows[rows["disturbed"].notna()]
    disturbed, samples = count_disturbed(told.to_dict("records"))
    if not disturbed:
        return []
    said = [f"{disturbed:.0f} of {samples} samples stayed disturbed, so that they are too long"]
    lost = int(is_lost(told).sum())
    if lost:
        cases = "case, all of whose samples are" if lost == 1 else "cases, all of whose samples are"
        said.append(f"nothing is claimed from {lost} {cases}")
    return said


def _tested(rows: pd.DataFrame) -> list[str]:
    """The worst that tests of the machine showed between the measurements."""
    tests = [spin.of(row.to_dict(), spin.PREFIX) for _, row in rows.iterrows()]
    busy = [test for test in tests if test and test.signs]
    if not busy:
        return []
    worst = max(busy, key=lambda test: (test.waited or 0.0, test.steal or 0.0, test.slowdown))
    return [", ".join(worst.signs)]


def _drifted(rows: pd.DataFrame) -> list[str]:
    drifts = [float(drift) for drift in rows["drift"].dropna() if is_drift(drift)]
    if not drifts:
        return []
    worst = max(drifts, key=lambda drift: max(drift, 1 / drift))
    return [
        f"all calls took {worst:.2f} times as long at the end of their rounds as at the beginning "
        "(heat, a battery, or work that set in or ended): ratios within a round hold, ms do not"
    ]


def _length(samples: Sequence[float]) -> int:
    return len(samples) if isinstance(samples, list) else 0
