"""How long cases should take, and what of a budget is left."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from lossbench.bench.cases.case import Case
from lossbench.bench.measuring.timing import VISIT_MS

CALLS = {"cpu": 4, "cuda": 9}
"""Calls that a slow case makes when it is evaluated: warm-up with memory, samples, fp64 check."""
CALLS_IN_TURN = {"cpu": 2, "cuda": 9}
"""The same where samples are taken later, in turn with other cases."""
START_S = {"cpu": 0.0, "cuda": 10.0}
"""What a fresh process takes before its first call; on a CPU it is not noticed beside the rest."""
COMPILED_S, TUNED_S = 20.0, 90.0
"""What ``torch.compile`` takes on a GPU for a shape that no cache knows, and with max-autotune."""


def compile_s(case: Case) -> float:
    """Seconds that a compiler should take for a GPU; kernels of ours are ready by then."""
    if case.device == "cpu" or case.implementation != "compiled":
        return 0.0
    return TUNED_S if "max-autotune" in str(case.options.get("mode", "")) else COMPILED_S


class Clock:
    """Decides whether a case still fits, from the speed of those before it.

    Args:
        budget_s: seconds from now on.
        paired: cases are timed in turn, after they were evaluated.
        now: what time it is, in seconds.
    """

    def __init__(
        self, budget_s: float, paired: bool, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._now, self._calls = now, CALLS_IN_TURN if paired else CALLS
        self._end = now() + budget_s
        self._macs_per_ms = 0.0

    @property
    def left_s(self) -> float:
        """Of the budget."""
        return self._end - self._now()

    def learn(self, case: Case, record: dict[str, Any]) -> None:
        """Remember the fastest arithmetic seen."""
        if record["status"] == "ok":
            rate = case.cost.macs(case.pass_) / record["median_ms"]
            self._macs_per_ms = max(self._macs_per_ms, rate)

    def allows(self, case: Case) -> bool:
        """Whether evaluating the case fits in the budget; times in turn take what is left."""
        return self.left_s > self._evaluation_s(case)

    def least_s(self, cases: Iterable[Case], rounds: int) -> float:
        """Seconds that cases need which are evaluated and timed in so many rounds."""
        return sum(
            self._evaluation_s(case) + rounds * max(VISIT_MS / 1e3, self._call_s(case))
            for case in cases
        )

    def _evaluation_s(self, case: Case) -> float:
        return self._calls[case.device] * self._call_s(case) + compile_s(case)

    def _call_s(self, case: Case) -> float:
        if not self._macs_per_ms:
            return 0.0
        return case.cost.macs(case.pass_) / self._macs_per_ms / 1e3
