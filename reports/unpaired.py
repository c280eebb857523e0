"""Ratios of times from different sessions, which were not sampled in turn: nothing cancels."""

import numpy as np
import pandas as pd
from scipy.special import bdtr, ndtri, stdtrit

from lossbench.bench.comparing.ratios import Ratio

DRIFT = 0.09
"""Standard deviation of the log ratio of two sessions of the same code: clocks, neighbours, where
memory lies. Sessions of one commit on the shared machine of ``reports/results`` differ by as much
as a rule. A run cannot tell that from a change."""
DRIFT_WEIGHT = 4.0
"""Cases of two runs that tell as much of how far sessions differ as ``DRIFT`` does."""
TAIL, TAIL_OF_ONE = 5.0, 3.0
"""Degrees of freedom of a log ratio, however surely ``DRIFT`` is known: some cases differ far more
than most. Of 64 ratios of idle sessions whose cases were sampled at three moments each, a t of 5.0
degrees of freedom is the likeliest, and of 160 at one moment 3.3, beside what the cases of two
sessions have in common: what slows the machine down for a second hits all samples of a case."""
FEW, MANY = 5, 20
"""Cases from which on two runs themselves tell how far sessions differ; and up to which they tell
more the more they are, as what differs between sessions they have in common."""


def compare(base: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Ratio of median times, interval and verdict of each pair of rows.

    The sampling error of each median is that of Price and Bonett (J. Stat. Comput. Simul. 72,
    2002), with Welch's degrees of freedom. Of several processes or moments the medians of each
    count: what those of one have in common does not shrink with their number. To that comes how far
    sessions differ: ``DRIFT``, moderated by the usual ratio of all cases of the two runs (Smyth
    2004). So where most cases differ by half, no case is claimed to be slower for differing by as
    much: it may be the machine. Exchanging base and new inverts ratio and interval.

    Args:
        base: records that are ok, with ``median_ms``, ``samples_ms``, ``pair_processes`` and
            ``moments``, missing where there is none.
        new: as many, of the same cases in the same order.

    Returns:
        Columns ``ratio``, ``low``, ``high`` and ``verdict``. The same record is SAME; an interval
        that is unknown reaches from 0 to infinity.
    """
    logs = np.log((new["median_ms"] / base["median_ms"]).to_numpy(float))
    error, freedom = _error(base, new)
    same = _is_same(base, new)
    between = _drift(logs[~same], error[~same])
    tail = np.where(_one_moment(base) | _one_moment(new), TAIL_OF_ONE, TAIL)
    variance = error**2 + between
    parts = error**4 / freedom + between**2 / tail
    with np.errstate(invalid="ignore"):
        freedom = np.where(np.isinf(variance), 1.0, variance**2 / parts)
    errors = np.where(same, 0.0, np.sqrt(variance))
    found = [Ratio.of(*each) for each in zip(logs, errors, freedom, strict=True)]
    columns = {
        "ratio": [each.value for each in found],
        "low": [each.low for each in found],
        "high": [each.high for each in found],
        "verdict": [each.verdict for each in found],
    }
    return pd.DataFrame(columns, index=base.index)


def _drift(logs: np.ndarray, error: np.ndarray) -> float:
    """Variance between sessions.

    By the usual size of a log ratio, beyond what sampling explains: that of the median of a t of
    ``TAIL`` degrees of freedom is 0.73 of its scale, and changes of less than half of the cases do
    not move it.
    """
    known = np.isfinite(error)
    if known.sum() < FEW:
        return DRIFT**2
    size = np.median(np.abs(logs[known])) / stdtrit(TAIL, 0.75)
    seen = max(0.0, size**2 - np.median(error[known] ** 2))
    weight = min(MANY, known.sum())
    return float((DRIFT_WEIGHT * DRIFT**2 + weight * seen) / (DRIFT_WEIGHT + weight))


def _one_moment(rows: pd.DataFrame) -> np.ndarray:
    """Whether all samples of a case follow one another, and not those of others."""
    in_turn, moments = rows["pair_processes"].notna(), rows["moments"].astype(float) > 1
    return ~(in_turn | moments).to_numpy()


def _error(base: pd.DataFrame, new: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Standard error of each log ratio by sampling alone, and its degrees of freedom (Welch)."""
    (error_base, freedom_base), (error_new, freedom_new) = _errors(base), _errors(new)
    variance = error_base**2 + error_new**2
    with np.errstate(divide="ignore", invalid="ignore"):  # constant samples, or one alone
        freedom = variance**2 / (error_base**4 / freedom_base + error_new**4 / freedom_new)
    return np.sqrt(variance), np.where(np.isnan(freedom), 1.0, freedom)


def _errors(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Standard error of each log median, and its degrees of freedom."""
    errors, freedom = np.full(len(rows), np.inf), np.ones(len(rows))
    lengths = rows["samples_ms"].map(len, na_action="ignore").fillna(0).to_numpy(int)
    processes, moments = (rows[name].astype(float) for name in ("pair_processes", "moments"))
    parts = processes.fillna(moments).fillna(1).to_numpy(int)
    samples = rows["samples_ms"].to_numpy()
    for count, number in {*zip(lengths.tolist(), parts.tolist(), strict=True)}:
        if count:
            chosen = np.flatnonzero((lengths == count) & (parts == number))
            logs = np.log(np.array([samples[i] for i in chosen], dtype=float))
            if number > 1:
                logs = np.median(logs.reshape(len(logs), number, -1), axis=2)
            errors[chosen], freedom[chosen] = _of_median(logs), max(1, logs.shape[1] - 1)
    return errors, freedom


def _of_median(logs: np.ndarray) -> np.ndarray:
    """From two samples as far below the median as above it, whatever the distribution."""
    count = logs.shape[1]
    if count == 1:
        return np.full(len(logs), np.inf)
    below = max(1, round((count + 1) / 2 - np.sqrt(count)))
    ordered = np.sort(logs, axis=1)
    deviations = -ndtri(bdtr(below - 1, count, 0.5))
    return (ordered[:, count - below] - ordered[:, below - 1]) / (2 * deviations)


def _is_same(base: pd.DataFrame, new: pd.DataFrame) -> np.ndarray:
    """Whether both rows are one measurement: the same key and the same samples."""
    equal = base["key"].to_numpy() == new["key"].to_numpy()
    equal &= base["median_ms"].to_numpy() == new["median_ms"].to_numpy()
    pairs = zip(base["samples_ms"], new["samples_ms"], strict=True)
    return equal & np.array([a == b or a is b for a, b in pairs], dtype=bool)
