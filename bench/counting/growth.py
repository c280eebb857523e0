"""One evaluation of a case at any batch, followed at three of them.

Without tiles the operations are the same whatever the batch, and every size is a polynomial of it
of second degree: so is what each operation does, and what is held between any two.
"""

from lossbench.bench.cases.case import Case, element_bytes
from lossbench.bench.counting.operations import Operation
from lossbench.bench.counting.polynomials import Polynomials
from lossbench.bench.counting.trace import Trace, trace
from lossbench.bench.counting.work import Work, most_held, smaller_batches, spaced, with_batch, work

STEP = 128
"""Batches that are followed where there are no tiles: this, and two and three times as many."""
LARGE_STEP = 2048
"""The same for what a compiler makes, which may differ for small batches."""
ALIKE_STEP = 2**13
"""The same where tiles grow with the batch: as many in each of these as in any larger one."""
HUGE = 2**12
"""Tiles along a batch that is larger than any memory holds."""
LIMIT = 2**31
COUNTS = tuple(name for name in Operation._fields if name != "precision")
"""Of an operation, those that grow with the batch."""


class Growth:
    """What a case of any batch does, and needs.

    Args:
        case: of any batch.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        side = case.cost.tile_side
        self._varies = bool(side) or case.implementation == "compiled"
        step = LARGE_STEP if self._varies else STEP
        self._batches = spaced(step, step)
        if side:
            huge = smaller_batches(with_batch(case, side * HUGE))
            self._batches = huge or spaced(ALIKE_STEP, ALIKE_STEP)
        self._known: dict[int, Trace] = {}
        self._works: dict[int, Work] = {}
        self._traces = [self._follow(with_batch(case, batch)) for batch in self._batches]
        # the row blocks of a share become more with its batch
        self._varies |= len({len(each.operations) for each in self._traces}) > 1
        self._held = most_held(case, self._batches, self._follow)

    def work(self, batch: int) -> Work:
        """What an evaluation of a batch does."""
        if batch not in self._works:
            self._works[batch] = self._work(batch)
        return self._works[batch]

    def _work(self, batch: int) -> Work:
        if self._varies:
            return work(with_batch(self._case, batch), self._follow)
        operations = [each.operations for each in self._traces]
        counted = [
            Polynomials(self._batches, [[getattr(o, name) for o in each] for each in operations])
            for name in COUNTS
        ]
        saved = Polynomials(self._batches, [[each.saved_bytes] for each in self._traces])
        told = Trace(
            [
                each._replace(**dict(zip(COUNTS, (round(float(x)) for x in amounts), strict=True)))
                for each, *amounts in zip(
                    operations[-1], *(each.at(batch) for each in counted), strict=True
                )
            ],
            [(int(self._held.at(batch).max()), "")],
            saved_bytes=int(saved.at(batch)[0]),
            uncounted=self._traces[-1].uncounted,
        )
        return Work(batch, (batch,), (told,))

    def _follow(self, case: Case) -> Trace:
        if case.batch not in self._known:
            self._known[case.batch] = trace(case)
        return self._known[case.batch]

    def largest_batch(self, memory_bytes: float) -> int:
        """The largest batch whose inputs and peak fit in a memory, 0 for none."""
        low, high = 1, LIMIT
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._needed(middle) <= memory_bytes else (low, middle)
        return low if low > 1 else 0

    def _needed(self, batch: int) -> float:
        inputs = 2 * batch * self._case.dim * element_bytes(self._case.dtype)
        return float(self._held.at(batch).max()) + inputs
