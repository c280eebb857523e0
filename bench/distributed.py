"""Cases measured by as many processes as they have devices, communication included.

``torchrun --nproc-per-node W -m bench run`` starts them. Every process calls the loss at the same
time; a sample is the time of the slowest.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import losses
from bench import environment
from bench.calls import case_call, create_loss
from bench.case import Case
from bench.ceilings import Ceilings, of_ceiling
from bench.counting import count
from bench.failures import guarded
from bench.inputs import make_views
from bench.job import Job, joined
from bench.measure import check
from bench.memory import peak_and_result
from bench.pretraining.phases import PhaseClock
from bench.runfile import Writer
from bench.sweep import describe, open_together
from bench.timing import Call, enough, make_timer, no_garbage_collection, summarise

WAITING = "communication"
Tell = Callable[[str], None]


def measure_together(
    cases: Sequence[Case], out: Path, restart: bool, tell: Tell
) -> list[dict[str, Any]]:
    """Measure the cases that the run file does not hold yet.

    Args:
        cases: of as many devices as there are processes.
        out: run file, which the first process writes.
        restart: as ``bench.sweep.open_run`` takes it.
        tell: told what happens, on the first process.

    Returns:
        On the first process the records of all cases; on others none.

    Raises:
        ValueError: a case of another number of devices.
    """
    device = cases[0].device
    with joined(device) as job:
        for case in cases:
            if case.world != job.world:
                raise ValueError(
                    f"{job.world} processes measure --world {job.world}, got {case.world}"
                )
        writer, aside = open_together(job, out, device, restart)
        if writer is None:  # the first process has it
            _follow(cases, job)
            return []
        if aside:
            tell(f"{out} came from other code or another environment: kept as {aside}")
        with writer:
            return _lead(cases, job, writer, tell)


def _follow(cases: Sequence[Case], job: Job) -> None:
    """Take part in what the first process leads."""
    for case in cases:
        if not job.agree(None):
            guarded(measure, case, job)


def _lead(cases: Sequence[Case], job: Job, writer: Writer, tell: Tell) -> list[dict[str, Any]]:
    ceilings = Ceilings.of(writer.header.get("calibration"))
    found = []
    for number, case in enumerate(cases, start=1):
        key = _key(case, writer.header)
        known = writer.records.get(key)
        if not job.agree(known is not None and known["status"] != "error"):
            tell(f"{number}/{len(cases)} {case.label}")
            writer.append(_record(case, key, writer.header, ceilings, job))
        found.append(writer.records[key])
    return found


def _key(case: Case, header: dict[str, Any]) -> str:
    alone = describe(case, header)["key"]
    return environment.content_hash([alone, "processes", case.world])


def _record(
    case: Case, key: str, header: dict[str, Any], ceilings: Ceilings | None, job: Job
) -> dict[str, Any]:
    found = {
        **describe(case, header),
        "key": key,
        "processes": job.world,
        **guarded(count, case, ceilings),
        **guarded(measure, case, job),
    }
    return found | of_ceiling(found)


def measure(case: Case, job: Job) -> dict[str, Any]:
    """Measure one evaluation of a case, on all processes at once.

    Returns:
        Fields as ``bench.measure.measure`` has them; ``peak_bytes`` is the most of any process.
        ``communication_ms``: mean over the processes of what a call waited for the others.
    """
    clock = PhaseClock(case.device)
    world = losses.World(waiting=partial(clock, WAITING))
    call = case_call(case, _loss(case, world), _own_views(case, job.rank))
    peak, result = peak_and_result(call, case.device)  # also warms up
    del result
    clock.take()
    samples, waited, result = _sample(call, case.device, clock, job)
    return {
        "peak_bytes": int(job.most(peak)),
        **summarise(samples),
        "communication_ms": median(waited),
        **_check(case, tuple(each.detach() for each in result), world),
    }


def _loss(case: Case, world: losses.World) -> Callable[..., Tensor]:
    if case.is_share:
        loss: Any = losses.create(case.loss, **case.hyperparameters)
    else:
        loss = create_loss(case)
    return losses.distribute(loss, case.distribution, world)


def _own_views(case: Case, rank: int) -> tuple[Tensor, Tensor]:
    """A process's part of the views of all; of its own loss, any."""
    if case.distribution == "local":
        return make_views(case)
    z_a, z_b = (view[rank * case.batch :][: case.batch] for view in make_views(_global(case)))
    return z_a.clone(), z_b.clone()


def _global(case: Case) -> Case:
    """The loss of all samples, on one device."""
    return replace(case, distribution="gather", implementation="reference", options={}, products="")


def _sample(
    call: Call, device: str, clock: PhaseClock, job: Job
) -> tuple[list[float], list[float], tuple[Tensor, ...]]:
    """Time calls until there are enough: the slowest process's milliseconds, and what was waited.

    Returns:
        Samples, waits, and what the last call returned.
    """
    timer = make_timer(device)
    samples: list[float] = []
    waited: list[float] = []
    result: Any = None
    with no_garbage_collection():
        while not enough(samples):
            result = None
            job.mean(torch.zeros((), device=device))  # all begin at the same time
            elapsed, result = timer(call)
            own_wait = torch.tensor(clock.take()[WAITING], device=device)
            samples.append(job.most(elapsed))
            waited.append(job.mean(own_wait).item())
    return samples, waited, result


def _check(case: Case, output: tuple[Tensor, ...], world: losses.World) -> dict[str, Any]:
    """``check`` of the output against fp64 of the samples of all processes."""
    if case.distribution == "local":
        return check(case, output)
    value, *own = output
    if not own:
        return check(_global(case), output)
    # each process has W times the gradient of its own samples, see losses.distributed
    gradients = (world.gather(torch.stack(own)) / world.size).unbind()
    if world.rank:
        return {}
    return check(_global(case), (value, *gradients))
