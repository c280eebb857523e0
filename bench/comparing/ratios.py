"""Ratios of times that were sampled in pairs, with their intervals and verdicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import stdtrit

from lossbench.bench.comparing.moderation import Group, Noise, Pairs, Samples, learn

FLOOR = 0.01
"""No difference below 1% is claimed, however quiet the machine."""
SAME = 0.05
"""Two calls whose whole interval is within 5% are the same."""
SHOWN = 0.95
"""Confidence of the interval that is shown."""
LEAST = 2
"""Processes before the first look, of a comparison that may have several: what one has in common is
not seen within it."""
LOOKS = 5
"""A comparison is looked at so often at most, and ends when it is settled."""
WRONG = 0.005
"""Share of comparisons of a call with itself of which a difference may be claimed, however often
they are looked at."""

Record = Mapping[Any, Any]


@dataclass(frozen=True)
class Ratio:
    """Time of a contender over that of a baseline.

    Attributes:
        value: geometric mean.
        low: lower end of the 95% interval.
        high: its upper end.
        least: lower end of the interval that claims rest on.
        most: its upper end.
    """

    value: float
    low: float
    high: float
    least: float
    most: float

    @classmethod
    def of(cls, mean: float, error: float, freedom: float, looks: int = LOOKS) -> "Ratio":
        """From the mean of log ratios, its standard error and degrees of freedom.

        Args:
            mean: of log ratios.
            error: of it.
            freedom: of that.
            looks: as ``claimed`` takes them.
        """
        shown, surer = (
            float(stdtrit(freedom, (1 + confidence) / 2)) * error if error else 0.0
            for confidence in (SHOWN, claimed(looks))
        )
        ends = (mean, mean - shown, mean + shown, mean - surer, mean + surer)
        with np.errstate(over="ignore"):
            return cls(*(float(np.exp(end)) for end in ends))

    @property
    def verdict(self) -> str:
        """FASTER, SLOWER, SAME or UNRESOLVED."""
        if self.most < 1 / (1 + FLOOR):
            return "FASTER"
        if self.least > 1 + FLOOR:
            return "SLOWER"
        same = self.low >= 1 / (1 + SAME) and self.high <= 1 + SAME
        return "SAME" if same else "UNRESOLVED"


def claimed(looks: int) -> float:
    """Confidence of the interval that a claim rests on.

    All looks at a comparison together claim at most ``WRONG`` (Bonferroni).

    Args:
        looks: how often it may be looked at, which is known before it is.
    """
    return 1 - WRONG / looks


def ratio(contender: Samples, baseline: Samples, noise: Noise, looks: int = LOOKS) -> Ratio:
    """Ratio of times that were sampled in the same rounds.

    Args:
        contender: milliseconds of each round of each sitting.
        baseline: likewise.
        noise: that the group shows.
        looks: as ``claimed`` takes them.
    """
    pairs = Pairs.of(contender, baseline)
    return Ratio.of(pairs.mean, *noise.error(pairs), looks)


def ratio_of(contender: Record, baseline: Record, noise: Noise) -> Ratio:
    """``ratio`` of two records of a group."""
    looks = min(looks_at(contender), looks_at(baseline))
    return ratio(by_process(contender), by_process(baseline), noise, looks)


def looks_at(record: Record) -> int:
    """How often comparisons of a record may have been looked at."""
    looks = record.get("pair_looks")
    return int(looks) if isinstance(looks, (int, float)) and looks >= 1 else LOOKS  # missing: nan


def is_open(
    contender: Samples, baseline: Samples, looks: int, noise: Noise, later: Noise, growth: float
) -> bool:
    """Whether there is no verdict yet, and ``growth`` times as many rounds may settle it.

    They may if they would for any ratio that they may show, going by how rounds differ.

    Args:
        contender: as ``ratio`` takes it.
        baseline: likewise.
        looks: as ``claimed`` takes them.
        noise: that the group shows.
        later: that it may show then.
        growth: at least 1.
    """
    pairs = Pairs.of(contender, baseline)

    def has_verdict(mean: float, error: float, freedom: float) -> bool:
        return Ratio.of(mean, error, freedom, looks).verdict != "UNRESOLVED"

    if has_verdict(pairs.mean, *noise.error(pairs)):
        return False
    by_rounds = replace(noise, placement=0.0, control=0.0)
    shown = Ratio.of(pairs.mean, *by_rounds.error(pairs), looks)
    nearest = min(max(1.0, shown.low), shown.high)
    possible = [float(np.log(end)) for end in (shown.low, nearest, shown.high)]
    more = later.error(pairs.grown(growth))
    return any(has_verdict(mean, *more) for mean in possible)


def noises_of(records: Iterable[Record]) -> dict[str, Noise]:
    """What each group of records, of one machine, shows of its noise: by itself and the others.

    In each, cases are compared with the one that was timed twice in each round, and that with
    itself. What was not timed in turn shows nothing.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        if is_paired(record):
            groups.setdefault(record["pair_group"], []).append(record)
    found = learn([_pairs(group) for group in groups.values()])
    return dict(zip(groups, found, strict=True))


def _pairs(group: Sequence[Record]) -> Group:
    twice = next((each for each in group if _has(each, "control_ms")), group[0])
    base = by_process(twice)
    comparisons = [Pairs.of(by_process(each), base) for each in group if each is not twice]
    with_itself = _has(twice, "control_ms")
    return comparisons, [Pairs.of(by_process(twice, "control_ms"), base)] if with_itself else []


def is_paired(record: Any) -> bool:
    """Whether the time of a record, or of a table's row, was taken in turn with others'."""
    return isinstance(record.get("pair_group"), str) and _has(record, "samples_ms")


def _has(record: Record, name: str) -> bool:
    return isinstance(record.get(name), list)  # a table's missing value is no list


def by_process(record: Record, name: str = "samples_ms") -> list[list[float]]:
    """Samples of a record that was timed in turn, apart for each of its processes."""
    samples, processes = record[name], int(record["pair_processes"])
    rounds = len(samples) // processes
    return [samples[i * rounds : (i + 1) * rounds] for i in range(processes)]


def digits(value: float) -> str:
    """Three significant digits of a ratio, two of one that is out of all proportion."""
    if not 1e-3 <= value < 1e5:
        return f"{value:.2g}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
