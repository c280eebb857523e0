"""How far verdicts can be believed, by samples of a call beside itself and a slowed copy.

What paired timing claims of them is counted; and by drawing from them anew, how often an interval
holds the true ratio.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossbench.bench.comparing.moderation import Noise, Pairs, learn
from lossbench.bench.comparing.ratios import LEAST, ratio

CALLS = {
    "self": "samples_ms",
    "control": "control_ms",
    "again": "again_ms",
    "slowed": "slowed_ms",
}
"""What is timed in turn -> field of a record: a call, its control, itself again, a slowed copy."""
SITTINGS = {2: (1, 2), 4: (2, 2), 8: (2, 4), 20: (5, 4)}
"""Rounds of a comparison -> in how many processes, of how many rounds each."""
DRAWS, OF_A_RUN = 10_000, 8
"""Comparisons that are drawn, and how many make up a run that noise is learnt from."""

Session = Mapping[str, Sequence[float]]
"""Milliseconds of each of ``CALLS`` in one process, one entry for each round."""


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


def comparisons(records: Iterable[Mapping[Any, Any]], processes: int) -> list[tuple[Session, ...]]:
    """Comparisons that share their processes, each a session of every one of these.

    Args:
        records: one for each process, as ``lossbench noise`` writes them.
        processes: of a comparison; those that the records do not fill are left out.
    """
    cut = [_sessions(record) for record in records]
    batches = (cut[start : start + processes] for start in range(0, len(cut), processes))
    whole = (batch for batch in batches if len(batch) == processes)
    return [session for batch in whole for session in zip(*batch, strict=True)]


def _sessions(record: Mapping[Any, Any]) -> list[Session]:
    """What a process sampled, apart for each comparison."""
    rounds, total = int(record["noise_rounds"]), len(record[CALLS["self"]])
    return [
        {name: record[field][start : start + rounds] for name, field in CALLS.items()}
        for start in range(0, total, rounds)
    ]


def judge(compared: Sequence[Sequence[Session]]) -> Trust:
    """What paired timing claims of comparisons, as those of one run."""
    if not compared:
        return Trust(0, 0, 0)
    processes = len(compared[0])
    looks = range(min(LEAST, processes), processes + 1)
    noises = [_noise([session[:look] for session in compared]) for look in looks]
    same = [_verdict(session, "again", looks, noises) for session in compared]
    slower = [_verdict(session, "slowed", looks, noises) for session in compared]
    return Trust(
        comparisons=len(compared),
        false_claims=sum(verdict in ("FASTER", "SLOWER") for verdict in same),
        found=slower.count("SLOWER"),
    )


def coverage(compared: Sequence[Sequence[Session]], rounds: int) -> float:
    """Share of drawn comparisons of a call with itself whose 95% interval holds 1.

    Args:
        compared: sampled comparisons, from which runs of ``OF_A_RUN`` are drawn.
        rounds: of each that is drawn, one of ``SITTINGS``.

    Returns:
        The share; nan where a comparison has not so many processes or rounds.
    """
    processes, each = SITTINGS[rounds]
    if not compared or processes > len(compared[0]) or each > len(compared[0][0]["self"]):
        return float("nan")
    generator = np.random.default_rng(0)
    held = []
    for _ in range(DRAWS // OF_A_RUN):
        run = [
            _part(compared[index], generator, processes, each)
            for index in generator.integers(len(compared), size=OF_A_RUN)
        ]
        noise = _noise(run, controls=1)
        found = [ratio(_of(session, "again"), _of(session, "self"), noise) for session in run]
        held += [one.low <= 1 <= one.high for one in found]
    return float(np.mean(held))


def _part(
    session: Sequence[Session], generator: np.random.Generator, processes: int, each: int
) -> list[Session]:
    """Some processes of a comparison, and of each some rounds that follow one another."""
    chosen = generator.permutation(len(session))[:processes]
    first = int(generator.integers(len(session[0]["self"]) - each + 1))
    return [
        {name: samples[first : first + each] for name, samples in session[index].items()}
        for index in chosen
    ]


def _noise(compared: Sequence[Sequence[Session]], controls: int | None = None) -> Noise:
    """What all comparisons show, as those of a run, and so many of their controls."""
    others = [(session, name) for session in compared for name in ("again", "slowed")]
    return learn(
        [Pairs.of(_of(session, name), _of(session, "self")) for session, name in others],
        [
            Pairs.of(_of(session, "control"), _of(session, "self"))
            for session in compared[:controls]
        ],
    )


def _of(session: Sequence[Session], name: str) -> list[list[float]]:
    return [list(each[name]) for each in session]


def _verdict(
    session: Sequence[Session], name: str, looks: Sequence[int], noises: Sequence[Noise]
) -> str:
    """The first that settles a comparison, as more and more of its processes are looked at."""
    verdict = ""
    for look, noise in zip(looks, noises, strict=True):
        part = session[:look]
        verdict = ratio(_of(part, name), _of(part, "self"), noise, len(looks)).verdict
        if verdict != "UNRESOLVED":
            break
    return verdict
