"""Polynomials of second degree through values at three evenly spaced batches."""

from collections.abc import Sequence

import numpy as np

POINTS = 3


class Polynomials:
    """One for each quantity, in Newton's form.

    In 80-bit floating point, where there is one, counts are exact.

    Args:
        batches: three, evenly spaced.
        values: at each of them, those of every quantity.
    """

    def __init__(self, batches: Sequence[int], values: Sequence[Sequence[float]]) -> None:
        self._first, self._step = batches[0], batches[1] - batches[0]
        first, second, third = (np.array(each, dtype=np.longdouble) for each in values)
        self._terms = first, second - first, (third - 2 * second + first) / 2

    def at(self, batch: int) -> np.ndarray:
        """Their values at a batch."""
        x = np.longdouble(batch - self._first) / self._step
        constant, linear, square = self._terms
        return np.asarray(constant + x * linear + x * (x - 1) * square)
