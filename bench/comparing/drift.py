"""Whether all calls became slower, or quicker, while they were timed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lossbench.bench.comparing.moderation import Samples

DRIFT = 0.15
"""A change that is larger is that of the machine: heat, a battery, or work that set in."""
LEAST_ROUNDS = 6
"""Of a call: two in each third."""


def drifted(by_case: Sequence[Samples]) -> dict[str, Any]:
    """How much longer calls took in the last third of their rounds than in the first.

    Args:
        by_case: milliseconds of each call in each process, in the order in which they were taken.

    Returns:
        ``drift``, the median over the calls of the ratio of the two thirds' medians: 1.2 is a fifth
        longer. Nothing where no call has enough rounds.
    """
    series = [[ms for process in processes for ms in process] for processes in by_case]
    ratios = [_of_thirds(samples) for samples in series if len(samples) >= LEAST_ROUNDS]
    return {"drift": float(np.exp(np.median(np.log(ratios))))} if ratios else {}


def is_drift(ratio: float) -> bool:
    """Whether it is more than a machine's usual ups and downs."""
    return not 1 / (1 + DRIFT) <= ratio <= 1 + DRIFT


def _of_thirds(samples: Sequence[float]) -> float:
    third = len(samples) // 3
    return float(np.median(samples[-third:]) / np.median(samples[:third]))
