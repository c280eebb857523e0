"""How far verdicts can be believed, by samples of a call beside itself and a slowed copy.

What paired timing claims of them is counted; and by drawing from them anew, how often an interval
holds the true ratio.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lossbench.bench.comparing.moderation import Group, Noise, Pairs, learn
from lossbench.bench.comparing.ratios import LEAST, is_open, ratio

CALLS = {
    "self": "samples_ms",
    "control": "control_ms",
    "again": "again_ms",
    "slowed": "slowed_ms",
}
"""What is timed in turn -> field of a record: a call, its control, itself again, a slowed copy."""
SITTINGS = {2: (1, 2), 4: (2, 2), 8: (2, 4), 20: (5, 4)}
"""Rounds of a comparison -> in how many processes, of how many rounds each."""
DRAWS, OF_A_GROUP = 10_000, 8
"""Comparisons that are drawn, and how many make up a group that noise is learnt from."""

Session = Mapping[str, Sequence[float]]
"""Milliseconds of each of ``CALLS`` in one process, one entry for each round."""
Comparison = Sequence[Session]
"""In each of its processes."""


@dataclass(frozen=True)
class Trust:
    """What paired timing claimed.

    Attributes:
        comparisons: of a case with itself, and as many with a slowed copy.
        false_claims: FASTER or SLOWER said of a case and itself.
        found: SLOWER said of the slowed copy.
    """

    comparisons: int
    false_claims: int
    found: int


def comparisons(records: Iterable[Mapping[Any, Any]], processes: int) -> list[list[Comparison]]:
    """Groups of comparisons that share their processes.

    Args:
        records: one for each process, as ``lossbench noise`` writes them.
        processes: of a comparison; those that the records do not fill are left out.
    """
    cut = [_sessions(record) for record in records]
    batches = (cut[start : start + processes] for start in range(0, len(cut), processes))
    whole = (batch for batch in batches if len(batch) == processes)
    return [list(zip(*batch, strict=True)) for batch in whole]


def _sessions(record: Mapping[Any, Any]) -> list[Session]:
    """What a process sampled, apart for each comparison."""
    rounds, total = int(record["noise_rounds"]), len(record[CALLS["self"]])
    return [
        {name: record[field][start : start + rounds] for name, field in CALLS.items()}
        for start in range(0, total, rounds)
    ]


def judge(groups: Sequence[Sequence[Comparison]]) -> Trust:
    """What paired timing claims of groups of comparisons, as those of one run."""
    if not groups:
        return Trust(0, 0, 0)
    processes = len(groups[0][0])
    looks = range(min(LEAST, processes), processes + 1)
    noises = [learn([_pairs([one[:look] for one in group]) for group in groups]) for look in looks]
    same, slower = (
        [
            _verdict(one, name, looks, of_group)
            for group, of_group in zip(groups, zip(*noises, strict=True), strict=True)
            for one in group
        ]
        for name in ("again", "slowed")
    )
    return Trust(
        comparisons=len(same),
        false_claims=sum(verdict in ("FASTER", "SLOWER") for verdict in same),
        found=slower.count("SLOWER"),
    )


def coverage(groups: Sequence[Sequence[Comparison]], rounds: int) -> float:
    """Share of drawn comparisons of a call with itself whose 95% interval holds 1.

    Args:
        groups: sampled comparisons, of which groups of ``OF_A_GROUP`` are drawn, runs of their own.
        rounds: of each that is drawn, one of ``SITTINGS``.

    Returns:
        The share; nan where a comparison has not so many processes or rounds.
    """
    processes, each = SITTINGS[rounds]
    compared = [one for group in groups for one in group]
    if not compared or processes > len(compared[0]) or each > len(compared[0][0]["self"]):
        return float("nan")
    generator = np.random.default_rng(0)
    held = []
    for _ in range(DRAWS // OF_A_GROUP):
        group = [
            _part(compared[index], generator, processes, each)
            for index in generator.integers(len(compared), size=OF_A_GROUP)
        ]
        (noise,) = learn([_pairs(group)])
        found = [ratio(_of(one, "again"), _of(one, "self"), noise) for one in group]
        held += [one.low <= 1 <= one.high for one in found]
    return float(np.mean(held))


def _part(
    comparison: Comparison, generator: np.random.Generator, processes: int, each: int
) -> Comparison:
    """Some processes of a comparison, and of each some rounds that follow one another."""
    chosen = generator.permutation(len(comparison))[:processes]
    first = int(generator.integers(len(comparison[0]["self"]) - each + 1))
    return [
        {name: samples[first : first + each] for name, samples in comparison[index].items()}
        for index in chosen
    ]


def _pairs(group: Sequence[Comparison]) -> Group:
    """All comparisons with ``self``, and the one control that a group of paired timing has."""
    others = [(one, name) for one in group for name in ("again", "slowed")]
    first = group[0]
    return (
        [Pairs.of(_of(one, name), _of(one, "self")) for one, name in others],
        [Pairs.of(_of(first, "control"), _of(first, "self"))],
    )


def _of(comparison: Comparison, name: str) -> list[list[float]]:
    return [list(each[name]) for each in comparison]


def _verdict(
    comparison: Comparison, name: str, looks: Sequence[int], noises: Sequence[Noise]
) -> str:
    """The one that stands when it is settled, as more and more of its processes are looked at."""
    verdict = ""
    for look, noise in zip(looks, noises, strict=True):
        part = comparison[:look]
        pair = (_of(part, name), _of(part, "self"))
        verdict = ratio(*pair, noise, len(looks)).verdict
        later = replace(noise, control=0.0)
        if not is_open(*pair, len(looks), noise, later, looks[-1] / look):
            break
    return verdict
