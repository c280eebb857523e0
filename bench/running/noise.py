"""How far paired timing can be believed here: a case against itself, and against a slowed copy."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from lossbench.bench.cases.case import Case
from lossbench.bench.measuring.sessions import ROUNDS, SESSIONS
from lossbench.bench.records.environment import content_hash
from lossbench.bench.records.kinds import NOISE
from lossbench.bench.records.runfile import Writer
from lossbench.bench.running.groups import PROCESSES
from lossbench.bench.running.neighbour import busy
from lossbench.bench.running.sweep import describe
from lossbench.bench.running.worker import Worker


def processes(comparisons: int, device: str) -> int:
    """How many fresh processes ``sample`` starts for so many comparisons."""
    return PROCESSES[device] * -(-comparisons // SESSIONS)


def sample(
    case: Case,
    comparisons: int,
    slowdown: float,
    neighbour: bool,
    timeout_s: float,
    writer: Writer,
) -> Iterator[dict[str, Any]]:
    """Time a case beside itself and a slowed copy, in one fresh process after the other.

    This is ``lossbench run --paired`` with as many processes and rounds as it gives quick cases,
    but that ``SESSIONS`` comparisons share their processes.

    Args:
        case: what is compared.
        comparisons: how often.
        slowdown: share of its time that is added to the copy.
        neighbour: keep a core busy half of the time meanwhile.
        timeout_s: seconds after which a process is given up.
        writer: a run file; what it holds is not sampled again.

    Yields:
        A record of each process.

    Raises:
        RuntimeError: the case failed.
    """
    worker = Worker(case.device)
    for number in range(processes(comparisons, case.device)):
        about = _describe(case, writer.header, slowdown, neighbour, number)
        if about["key"] not in writer.records:
            with busy() if neighbour else nullcontext():
                found = worker.sample_noise(case, slowdown, timeout_s)
            worker.stop()
            if found["status"] != "ok":
                raise RuntimeError(f"{case.label}: {found['reason']}")
            writer.append({**about, **found})
        yield writer.records[about["key"]]


def _describe(
    case: Case, header: dict[str, Any], slowdown: float, neighbour: bool, number: int
) -> dict[str, Any]:
    """Fields that say what a process samples."""
    of_case = describe(case, header)
    about = {
        "noise_pass": case.pass_,
        "noise_slowdown": slowdown,
        "noise_neighbour": neighbour,
        "noise_rounds": ROUNDS,
        "noise_processes": PROCESSES[case.device],
    }
    key = content_hash([of_case["key"], about, number])
    return {**of_case, **about, "pass": NOISE, "key": key}
