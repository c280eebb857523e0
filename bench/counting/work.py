"""What a case of any batch does, from traces of smaller ones where its own would be long.

Whatever a batch does whose work is cut into tiles grows as a polynomial of second degree over
batches that differ by whole tiles: three of them tell all others, exactly as far as counts go.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lossbench.bench.cases.case import Case
from lossbench.bench.counting.polynomials import POINTS, Polynomials
from lossbench.bench.counting.trace import Trace, trace

FEW = 3
"""Tiles along the smallest batch that is followed in place of a large one: there are some of each
kind, and the fused kernels keep no G of so many."""
CONTEXT = 12
"""Calls before a point that tell it from others."""


@dataclass(frozen=True)
class Work:
    """What one evaluation of a case does, followed or told from others.

    Attributes:
        batch: of the case.
        batches: that were followed.
        traces: of each of them.
        held: what is held at points that all have; see ``most_held``.
    """

    batch: int
    batches: tuple[int, ...]
    traces: tuple[Trace, ...]
    held: Polynomials | None = None

    @classmethod
    def of(cls, done: Trace) -> "Work":
        """That of a single trace, of no batch in particular."""
        return cls(0, (0,), (done,))

    def count(self, quantity: Callable[[Trace], int]) -> int:
        """A count of the case that grows as its work does."""
        return round(self.sums(lambda each: [quantity(each)])[0])

    def sums(self, quantities: Callable[[Trace], Sequence[float]]) -> list[float]:
        """Any quantities that do."""
        values = [quantities(each) for each in self.traces]
        if len(values) == 1:
            return list(values[0])
        return [float(x) for x in Polynomials(self.batches, values).at(self.batch)]

    @property
    def uncounted(self) -> set[str]:
        """Names of what was called whose arithmetic is not counted."""
        return set().union(*(each.uncounted for each in self.traces))

    @property
    def peak_bytes(self) -> int:
        """Held at most, beyond the inputs."""
        if self.held is None:
            return self.traces[0].peak_bytes
        return round(float(self.held.at(self.batch).max()))


def followed(case: Case) -> Case:
    """The case whose operations are looked at: ``auto`` would choose for each way of looking."""
    if case.implementation == "auto" and not case.is_share:
        return replace(case, implementation=case.choice.implementation, options={})
    return case


Follow = Callable[[Case], Trace]


def work(case: Case, follow: Follow = trace) -> Work:
    """Follow a case, or smaller ones of its kind.

    Args:
        case: what to follow; see ``followed`` for which cases.
        follow: how.
    """
    batches = smaller_batches(case)
    if not batches:
        return Work(case.loss_batch, (case.loss_batch,), (follow(case),))
    known = {batch: follow(with_batch(case, batch)) for batch in batches}

    def once(of: Case) -> Trace:
        return known[of.batch] if of.batch in known else follow(of)

    # of whole tiles: where others have smaller tiles depends on the number of tiles
    ragged = batches[0] % case.cost.tile_side
    held = most_held(case, [batch - ragged for batch in batches], once)
    return Work(case.loss_batch, tuple(batches), tuple(known.values()), held)


def smaller_batches(case: Case) -> list[int]:
    """Batches that stand for a case's; none where its own is small, or not cut into tiles."""
    side, batch = case.cost.tile_side, case.loss_batch
    tiles = FEW
    while side and batch > (tiles + POINTS) * side:
        first = tiles * side
        found = spaced(first + (batch - first) % side, side)
        if _stand_for(case, found):
            return found
        tiles *= 2
    return []


def spaced(first: int, step: int) -> list[int]:
    """Three batches."""
    return [first + number * step for number in range(POINTS)]


def _stand_for(case: Case, batches: list[int]) -> bool:
    """Whether three batches do the kind of work that a case's does: its cost model knows.

    Some losses do other work where there are more samples than features.
    """
    macs = [[with_batch(case, batch).cost.macs(case.pass_)] for batch in batches]
    told = Polynomials(batches, macs).at(case.loss_batch)[0]
    return bool(np.isclose(told, case.cost.macs(case.pass_), rtol=1e-9))


def most_held(case: Case, batches: Sequence[int], follow: Follow) -> Polynomials:
    """What a case holds at its points, from what it holds at each of three batches.

    A larger batch has more tiles, so more of the same calls: of points after the same calls, the
    most that is held tells. A fourth batch tells which of those grow as a polynomial: where blocks
    of rows begin and end does not.
    """
    traces = [follow(with_batch(case, batch)) for batch in batches]
    calls = [[name for _, name in each.held] for each in traces]
    if all(names == calls[0] for names in calls):
        return Polynomials(batches, [[size for size, _ in each.held] for each in traces])
    further = follow(with_batch(case, batches[-1] + batches[1] - batches[0]))
    points = [_points(each) for each in (*traces, further)]
    common = [point for point in points[0] if all(point in each for each in points)]
    sizes = [[each[point] for each in points] for point in common]
    told = [row for row in sizes if row[3] - 3 * row[2] + 3 * row[1] == row[0]]
    found = told or [[max(each.values()) for each in points]]
    return Polynomials(batches, list(zip(*found, strict=True))[:POINTS])


def _points(done: Trace) -> dict[tuple[str, ...], int]:
    """Last calls -> held at most after them."""
    points: dict[tuple[str, ...], int] = {}
    calls: tuple[str, ...] = ()
    for size, name in done.held:
        calls = (*calls[-CONTEXT:], name)
        points[calls] = max(size, points.get(calls, 0))
    return points


def with_batch(case: Case, batch: int) -> Case:
    """The same evaluation of a batch of another size: on one device, or one device's share."""
    if case.is_share:
        return replace(case, batch=batch)
    return replace(case, batch=batch, world=1, distribution="local")
