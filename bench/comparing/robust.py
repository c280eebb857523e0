"""The mean of noisy values, and how far it can be trusted, whatever a few of them are.

A stall hits a few values and says nothing of the others. A fifth of the values at each end is
therefore left out (a 20% trimmed mean), and the variance is Yuen's (Biometrika 61, 1974): of values
whose ends are replaced by the last that stayed (winsorised), so that it, too, knows nothing of how
long a stall was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TRIMMED = 0.2
"""Share of the values that is left out at each end, rounded down to whole values."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its uncertainty.

    Attributes:
        mean: of the values that were kept.
        variance: of that mean, not of a value; nan of one value.
        freedom: degrees of freedom of the variance: of the values that were kept, less one.
    """

    mean: float
    variance: float
    freedom: int


def left_out(count: int) -> int:
    """How many of some values ``trimmed_mean`` leaves out at each end."""
    return int(TRIMMED * count)


def trimmed_mean(values: Sequence[float]) -> Estimate:
    """The 20% trimmed mean of independent values, with the variance of Yuen (1974).

    Of fewer than five values none is left out, and mean and variance are the usual ones.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("a mean needs one value or more, got none")
    ordered = np.sort(np.asarray(values, dtype=float))
    count, cut = len(ordered), left_out(len(ordered))
    kept = ordered[cut : count - cut]
    freedom = len(kept) - 1
    winsorised = np.clip(ordered, kept[0], kept[-1])
    spread = float(np.square(winsorised - winsorised.mean()).sum())
    variance = spread / (freedom * (freedom + 1)) if freedom else float("nan")
    return Estimate(float(kept.mean()), variance, freedom)
