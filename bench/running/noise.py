"""How far paired timing can be believed here: a case against itself, and against a slowed copy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lossbench.bench.cases.case import Case
from lossbench.bench.comparing.ratios import noise, ratio
from lossbench.bench.measuring.sessions import CALLS, SESSIONS, Session
from lossbench.bench.running.groups import PROCESSES
from lossbench.bench.running.worker import Worker


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


def processes(comparisons: int, device: str) -> int:
    """How many fresh processes ``sample`` starts for so many comparisons."""
    return PROCESSES[device] * -(-comparisons // SESSIONS)


def sample(
    case: Case, comparisons: int, slowdown: float, timeout_s: float
) -> Iterator[list[Session]]:
    """Time a case beside itself and a slowed copy, in one fresh process after the other.

    This is ``lossbench run --paired`` with as many processes and rounds as it gives quick cases,
    but that ``SESSIONS`` comparisons share their processes.

    Args:
        case: what is compared.
        comparisons: how often.
        slowdown: share of its time that is added to the copy.
        timeout_s: seconds after which a process is given up.

    Yields:
        The sessions of a process.

    Raises:
        RuntimeError: the case failed.
    """
    worker = Worker(case.device)
    for _ in range(processes(comparisons, case.device)):
        found = worker.sample_noise(case, slowdown, timeout_s)
        worker.stop()
        if "sessions" not in found:
            raise RuntimeError(f"{case.label}: {found['reason']}")
        yield found["sessions"]


def judge(samples: Sequence[Sequence[Session]], comparisons: int, device: str) -> Trust:
    """What paired timing claims of sampled calls.

    Args:
        samples: sessions of each process, as ``sample`` yields them.
        comparisons: how many of the sessions to look at.
        device: "cpu" or "cuda".
    """
    each = PROCESSES[device]
    batches = (samples[start : start + each] for start in range(0, len(samples), each))
    compared = [session for batch in batches for session in zip(*batch, strict=True)]
    thresholds, same, slower = [], [], []
    for session in compared[:comparisons]:
        itself, control, again, slowed = ([process[name] for process in session] for name in CALLS)
        thresholds.append(noise(itself, control))
        same.append(ratio(again, itself).verdict(thresholds[-1]))
        slower.append(ratio(slowed, itself).verdict(thresholds[-1]))
    return Trust(
        comparisons=comparisons,
        false_claims=sum(verdict in ("FASTER", "SLOWER") for verdict in same),
        found=slower.count("SLOWER"),
        thresholds=tuple(thresholds),
    )
