"""How far paired timing can be believed here: a case against itself, and against a slowed copy."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.case import Case
from bench.counting import create_loss
from bench.groups import PROCESSES
from bench.inputs import make_views
from bench.paired import interleave
from bench.ratios import noise, ratio
from bench.timing import Call, make_call
from bench.worker import Worker

ROUNDS = 12
SESSIONS = 20
"""Comparisons that share their processes: a fresh one takes longer to start than to measure."""
CALLS = ("self", "control", "again", "slowed")


@dataclass(frozen=True)
class Trust:
    """What paired timing claimed.

    Attributes:
        comparisons: of a case with itself, and as many with a slowed copy.
        false_claims: FASTER or SLOWER said of a case and itself.
        found: SLOWER said of the slowed copy.
        thresholds: A/A threshold of each comparison.
    """

    comparisons: int
    false_claims: int
    found: int
    thresholds: tuple[float, ...]


def measure(case: Case, comparisons: int, slowdown: float, timeout_s: float) -> Trust:
    """Compare a case with itself and with a slowed copy, in pairs.

    This is ``lossbench run --paired`` with as many processes and rounds as it gives quick cases;
    comparisons share processes in batches.

    Args:
        case: what is compared.
        comparisons: how often.
        slowdown: share of its time that is added to the copy.
        timeout_s: seconds after which a process is given up.

    Raises:
        RuntimeError: the case failed.
    """
    verdicts: list[tuple[str, str]] = []
    thresholds: list[float] = []
    worker = Worker(case.device)
    while len(verdicts) < comparisons:
        processes = []
        for _ in range(PROCESSES):
            found = worker.sample_noise(case, slowdown, timeout_s)
            worker.stop()
            if "sessions" not in found:
                raise RuntimeError(f"{case.label}: {found['reason']}")
            processes.append(found["sessions"])
        for session in zip(*processes, strict=True):
            itself, control, again, slowed = (
                [process[name] for process in session] for name in CALLS
            )
            threshold = noise(itself, control)
            thresholds.append(threshold)
            verdicts.append(
                (
                    ratio(again, itself).verdict(threshold),
                    ratio(slowed, itself).verdict(threshold),
                )
            )
    verdicts = verdicts[:comparisons]
    return Trust(
        comparisons,
        sum(same in ("FASTER", "SLOWER") for same, _ in verdicts),
        sum(slowed == "SLOWER" for _, slowed in verdicts),
        tuple(thresholds[:comparisons]),
    )


def sessions(case: Case, slowdown: float) -> dict[str, Any]:
    """Samples of one process: for each session and each of ``CALLS``, one list of milliseconds."""
    call = make_call(create_loss(case), make_views(case), case.pass_)
    calls: Sequence[Call] = (call, call, call, _slowed(call, slowdown))
    for warm_up in calls:
        warm_up()
    measured = (interleave(calls, ROUNDS, case.device)[0] for _ in range(SESSIONS))
    return {"sessions": [dict(zip(CALLS, samples, strict=True)) for samples in measured]}


def _slowed(call: Call, share: float) -> Call:
    """The same call, after which the processor is kept busy for a share of the call's own time."""

    def slowed() -> Any:
        start = time.perf_counter()
        result = call()
        end = time.perf_counter()
        wanted = end + share * (end - start)
        while time.perf_counter() < wanted:
            pass
        return result

    return slowed
