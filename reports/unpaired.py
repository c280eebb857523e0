"""Ratios of times from different sessions, which were not sampled in turn: nothing cancels."""

import numpy as np
import pandas as pd
from scipy.special import bdtr, ndtri, stdtrit

from lossbench.bench.comparing.ratios import Ratio

DRIFT = 0.10
"""By how much two sessions of the same code may differ: clocks, neighbours, where memory lies. A
run cannot tell that from a change: no smaller difference is claimed. Sessions of one commit on the
shared machine of ``reports/results`` differ by 9% as a rule: of their 84 ratios 5% would claim six,
10% claims one."""


def compare(base: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Ratio of median times, interval and verdict of each pair of rows.

    The 95% interval is that of Price and Bonett (J. Stat. Comput. Simul. 72, 2002) for a ratio
    of medians, with Welch's t for few samples. Of several processes the medians of each count:
    what those of one process have in common does not shrink with their number. The A/A thresholds
    of both runs widen it. Exchanging base and new inverts ratio and interval.

    Args:
        base: records that are ok, with ``median_ms``, ``samples_ms``, ``pair_processes`` and
            ``pair_noise``, missing where there is none.
        new: as many, of the same cases in the same order.

    Returns:
        Columns ``ratio``, ``low``, ``high`` and ``verdict``. The same record is SAME; an interval
        that is unknown reaches from 0 to infinity.
    """
    ratio = (new["median_ms"] / base["median_ms"]).to_numpy(float)
    half = _half_width(base, new)
    half[_is_same(base, new)] = 0.0
    low, high = ratio * np.exp(-half), ratio * np.exp(half)
    intervals = zip(ratio, low, high, strict=True)
    verdicts = [Ratio(*interval).verdict(DRIFT) for interval in intervals]
    found = {"ratio": ratio, "low": low, "high": high, "verdict": verdicts}
    return pd.DataFrame(found, index=base.index)


def _half_width(base: pd.DataFrame, new: pd.DataFrame) -> np.ndarray:
    """Half the interval of the log ratio."""
    (error_base, freedom_base), (error_new, freedom_new) = _errors(base), _errors(new)
    variance = error_base**2 + error_new**2
    with np.errstate(divide="ignore", invalid="ignore"):  # constant samples, or one alone
        freedom = variance**2 / (error_base**4 / freedom_base + error_new**4 / freedom_new)
        sampling = np.where(variance > 0, stdtrit(freedom, 0.975) ** 2 * variance, 0.0)
    sampling[np.isinf(variance)] = np.inf
    noise = [np.log1p(rows["pair_noise"].fillna(0.0).to_numpy(float)) for rows in (base, new)]
    return np.sqrt(sampling + noise[0] ** 2 + noise[1] ** 2)


def _errors(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Standard error of each log median, and its degrees of freedom."""
    errors, freedom = np.full(len(rows), np.inf), np.ones(len(rows))
    lengths = rows["samples_ms"].map(len, na_action="ignore").fillna(0).to_numpy(int)
    processes = rows["pair_processes"].fillna(1).to_numpy(int)
    samples = rows["samples_ms"].to_numpy()
    for count, parts in {*zip(lengths.tolist(), processes.tolist(), strict=True)}:
        if count:
            chosen = np.flatnonzero((lengths == count) & (processes == parts))
            logs = np.log(np.array([samples[i] for i in chosen], dtype=float))
            if parts > 1:
                logs = np.median(logs.reshape(len(logs), parts, -1), axis=2)
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
