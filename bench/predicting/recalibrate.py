"""The ceilings of a run: measured again when a result beats them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lossbench.bench.predicting.ceilings import Ceilings, beats, of_ceiling
from lossbench.bench.records.calibrations import best_of_run

AGAIN = 2
"""How often a session measures its ceilings again, which takes seconds: what beats the best of all
those tries would beat that of another."""


class RunCeilings:
    """The ceilings that the results of a run are judged by.

    The header of a run file stays as it is, so ceilings that were measured again stand in the
    record that they were measured for, as ``calibration``: the best of all that are known then.

    Attributes:
        best: the best of those of the run; None: it was not calibrated.

    Args:
        header: of the run file.
        records: those that it holds.
        measure: calibrates the device.
    """

    def __init__(
        self,
        header: Mapping[str, Any],
        records: Iterable[Mapping[str, Any]],
        measure: Callable[[], Ceilings],
    ) -> None:
        self.best = Ceilings.of(best_of_run(header, records))
        self._measure, self._left = measure, AGAIN

    def judge(
        self, record: Mapping[str, Any], told: Callable[[Ceilings], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """What a record says of the ceilings, which are measured again if it beats them.

        Args:
            record: as ``of_ceiling`` takes it.
            told: the fields of the record that follow from ceilings.

        Returns:
            The fields of ``of_ceiling``; of a record that beat the ceilings also those that were
            told anew, and ``calibration``, if they were measured again.
        """
        fields: dict[str, Any] = {}
        if self.best and beats(record):
            fields = dict(told(self.best))  # measured again since the case was begun, it may be
            if self._left and beats({**record, **fields}):
                self._left -= 1
                self.best = Ceilings.best([self.best, self._measure()])
                fields = {**told(self.best), "calibration": self.best.describe()}
        return {**fields, **of_ceiling({**record, **fields})}
