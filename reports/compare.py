"""Runs against a first run, case by case. Cases match by what they are, wherever they were run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd

from lossbench.bench.comparing.gates import PEAK_TOLERANCE
from lossbench.bench.records.kinds import NOISE
from lossbench.reports import busy, unpaired
from lossbench.reports.naming import letter
from lossbench.reports.records import open_run, to_frame

CASE = (
    *("loss", "implementation", "variant", "options", "products", "batch", "dim"),
    *("dtype", "pass", "world", "distribution", "inputs", "setting"),
)
"""What a case is: neither the device nor the code. A third party's loss is known by its name, as
times that another tool wrote say no more."""
VALUES = (
    *("key", "title", "chosen", "status", "reason", "median_ms", "samples_ms", "pair_processes"),
    *("peak_bytes", "fraction_of_ceiling", "gradient_error", "machine"),
    *("contender", "hyperparameters", "inputs_id", "loss_batch", "ceiling_raised", "moments"),
    *busy.FIELDS,
)
ERROR_TIMES = 2.0
"""A gradient is worse if its error is this many times the other's, and above two roundings:
below, errors differ by the order of additions."""
SPACING = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
FIRST = ("device", "gpu", "cpu", "threads", "interpreted", "torch", "triton", "cuda", "driver")
"""Facts of an environment that change times most."""
GATES = {
    "slower": ("samples_ms", "two samples of the time"),
    "bigger": ("peak_bytes", "peak memory"),
    "wrong": ("gradient_error", "gradient error"),
}
"""What each compares of two records that are ok, as a field and in words."""
_END = "\x1f"
"""Stands in no field."""


class NoCommonCaseError(ValueError):
    """Two runs that cannot be compared."""


@dataclass(frozen=True)
class Side:
    """A run that is compared.

    Attributes:
        name: A for the first run, then B, C, ...
        path: where it was read from.
        environment: facts of its machine and software.
        rows: ``CASE`` and ``VALUES`` of its records; the index says which case a row is.
        repeated: cases that it holds more than once, of which the last counts.
    """

    name: str
    path: Path
    environment: dict[str, object]
    rows: pd.DataFrame
    repeated: int


def open_sides(runs: Sequence[Path | pd.DataFrame]) -> list[Side]:
    """Read runs, one after the other; records that were loaded are runs too.

    Raises:
        RunFileError: a file that is missing or damaged.
        ValueError: a file without records.
        NoCommonCaseError: one with no case of the first, or of ``lossbench noise`` alone.
    """
    sides = [_open(run, letter(number)) for number, run in enumerate(runs)]
    base = sides[0]
    for side in sides[1:]:
        if not side.rows.index.isin(base.rows.index).any():
            cases = [f"{s.path} has {s.rows.index[0].replace(_END, ' ')}" for s in (base, side)]
            raise NoCommonCaseError(f"no case is in both runs: {', '.join(cases)}")
    return sides


def _open(run: Path | pd.DataFrame, name: str) -> Side:
    records = run if isinstance(run, pd.DataFrame) else to_frame([open_run(run)])
    path = run if isinstance(run, Path) else Path(records.attrs.get("path", "records"))
    of_cases = records["pass"] != NOISE  # those are of one case, again and again
    if not of_cases.any():
        raise NoCommonCaseError(f"{path} is of lossbench noise: see lossreport table noise")
    records = records[of_cases]
    rows = records.reindex(columns=[*CASE, *VALUES])
    texts = [rows[field].astype(str) for field in CASE]
    rows.index = pd.Index(reduce(lambda left, right: left + _END + right, texts))
    repeated = rows.index.duplicated(keep="last")
    facts = records.attrs.get("environment", {})
    return Side(name, path, facts, rows[~repeated], int(repeated.sum()))


def compared(sides: Sequence[Side]) -> pd.Index:
    """Cases of the first run that another holds."""
    base = sides[0].rows.index
    return base[np.logical_or.reduce([base.isin(side.rows.index) for side in sides[1:]])]


def differences(base: Side, new: Side) -> list[str]:
    """What their environments differ in, each with both facts; what matters most comes first."""
    names = dict.fromkeys([*FIRST, *base.environment, *new.environment])
    pairs = {name: (base.environment.get(name), new.environment.get(name)) for name in names}
    return [
        f"{name} ({_fact(old)}, {_fact(now)})" for name, (old, now) in pairs.items() if old != now
    ]


def _fact(value: object) -> str:
    return "not said" if value is None else str(value)


def pair(base: Side, new: Side) -> pd.DataFrame:
    """Compare a run with the first, in the cases that both hold.

    Returns:
        Indexed as ``Side.rows``: ``ratio`` of new over base, ``low``, ``high`` and ``verdict``,
        missing where one of them failed; ``slower``, ``bigger`` and ``wrong``, see ``GATES``;
        ``busy``: whether ``slower`` is not known, since one of the two was measured on a busy
        machine and looks slower, or by disturbed samples alone.
    """
    cases = base.rows.index[base.rows.index.isin(new.rows.index)]
    old, now = base.rows.loc[cases], new.rows.loc[cases]
    was_ok, is_ok = old["status"] == "ok", now["status"] == "ok"
    both = was_ok & is_ok
    found = unpaired.compare(old[both], now[both]).reindex(cases)
    lost = busy.is_lost(old) | busy.is_lost(now)
    found.loc[lost & both, ["low", "high", "verdict"]] = 0.0, float("inf"), "UNRESOLVED"
    peaks = [rows["peak_bytes"].astype(float) for rows in (old, now)]
    slower, doubted = found["verdict"] == "SLOWER", busy.is_busy(old) | busy.is_busy(now)
    found["slower"], found["busy"] = slower & ~doubted, slower & doubted | lost & both
    found["bigger"] = peaks[1] > peaks[0] * (1 + PEAK_TOLERANCE)
    found["wrong"] = was_ok & (~is_ok | _is_worse(old, now))
    return found


def _is_worse(old: pd.DataFrame, now: pd.DataFrame) -> pd.Series:
    errors = [rows["gradient_error"].astype(float) for rows in (old, now)]
    rounding = 2 * old["dtype"].map(SPACING).fillna(0.0)
    return errors[1] > np.maximum(ERROR_TIMES * errors[0], rounding)


def has(rows: pd.DataFrame, gate: str) -> pd.Series:
    """Which records are ok and have what a gate compares; times say nothing by one sample."""
    values = rows[GATES[gate][0]]
    known = values.map(len, na_action="ignore") > 1 if gate == "slower" else values.notna()
    return known & (rows["status"] == "ok")


def mean_ratio(found: pd.DataFrame) -> float:
    """Geometric mean of the ratios of the cases that are ok in both; NaN if there is none."""
    return float(np.exp(np.log(found["ratio"].dropna().astype(float)).mean()))


def parse_gates(text: str) -> list[str]:
    """Names of gates, from a comma-separated list.

    Raises:
        ValueError: an unknown one.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in GATES]
    if unknown:
        raise ValueError(f"unknown gate {unknown[0]!r} in --fail-on; known: {', '.join(GATES)}")
    return names
