"""How far paired timing can be believed here: a case against itself, and against a slowed copy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lossbench.bench.cases.case import Case
from lossbench.bench.comparing.moderation import Noise, Pairs, learn
from lossbench.bench.comparing.ratios import ratio
from lossbench.bench.measuring.sessions import CALLS, SESSIONS, Session
from lossbench.bench.running.groups import PROCESSES
from lossbench.bench.running.sittings import LEAST
from lossbench.bench.running.worker import Worker


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
        samples: sessions of each process, as ``sample`` yields them; the last may be missing.
        comparisons: how many of the sessions to look at.
        device: "cpu" or "cuda".
    """
    each = PROCESSES[device]
    batches = (samples[start : start + each] for start in range(0, len(samples), each))
    whole = (batch for batch in batches if len(batch) == each)
    compared = [session for batch in whole for session in zip(*batch, strict=True)][:comparisons]
    looks = range(min(LEAST, each), each + 1)
    noises = [_noise(compared, look) for look in looks] if compared else []
    same = [_verdict(session, "again", looks, noises) for session in compared]
    slower = [_verdict(session, "slowed", looks, noises) for session in compared]
    return Trust(
        comparisons=len(compared),
        false_claims=sum(verdict in ("FASTER", "SLOWER") for verdict in same),
        found=slower.count("SLOWER"),
    )


def _noise(compared: Sequence[Sequence[Session]], look: int) -> Noise:
    """What all comparisons show, as those of a run, after so many processes."""
    calls = [[[each[name] for each in session[:look]] for name in CALLS] for session in compared]
    return learn(
        [Pairs.of(other, itself) for itself, _, *others in calls for other in others],
        [Pairs.of(control, itself) for itself, control, *_ in calls],
    )


def _verdict(
    session: Sequence[Session], name: str, looks: Sequence[int], noises: Sequence[Noise]
) -> str:
    """The first that settles a comparison, as more and more of its processes are looked at."""
    verdict = ""
    for look, noise in zip(looks, noises, strict=True):
        call, itself = ([each[of] for each in session[:look]] for of in (name, CALLS[0]))
        verdict = ratio(call, itself, noise).verdict
        if verdict != "UNRESOLVED":
            break
    return verdict
