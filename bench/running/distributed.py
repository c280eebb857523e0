"""Cases measured by as many processes as they have devices, communication included.

``torchrun --nproc-per-node W -m lossbench run`` starts them. Every process calls the loss at the
same time; a sample is the time of the slowest.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from lossbench import losses
from lossbench.bench.cases.calls import Call, case_call, create_loss, create_share
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.inputs import make_inputs
from lossbench.bench.measuring.accuracy import VALUE_TOLERANCE
from lossbench.bench.measuring.measure import check
from lossbench.bench.measuring.memory import peak_and_result
from lossbench.bench.measuring.phases import PhaseClock
from lossbench.bench.measuring.timing import enough, make_timer, no_garbage_collection, summarise
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.predicting.expected import count_and_predict
from lossbench.bench.predicting.recalibrate import RunCeilings
from lossbench.bench.records import environment
from lossbench.bench.records.failures import guarded
from lossbench.bench.records.runfile import Writer
from lossbench.bench.running.job import Job, joined
from lossbench.bench.running.sweep import Outcome, describe, open_together

WAITING = "communication"
WAITED_IN_VAIN = ("DistBackendError", "RuntimeError: [", "DistNetworkError")
"""How the reason of a process begins that only waited for another."""
Tell = Callable[[str], None]


def measure_together(cases: Sequence[Case], out: Path, restart: bool, tell: Tell) -> Outcome:
    """Measure the cases that the run file does not hold yet.

    Args:
        cases: of as many devices as there are processes.
        out: run file, which the first process writes.
        restart: as ``bench.running.sweep.open_run`` takes it.
        tell: told what happens, on the first process.

    Returns:
        On the first process that of all cases; on others one without records.

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
            return Outcome([], 0, 0)
        if aside:
            tell(f"{out} came from other code or another environment: kept as {aside}")
        with writer:
            return _lead(cases, job, writer, tell)


def _follow(cases: Sequence[Case], job: Job) -> None:
    """Take part in what the first process leads."""
    for number in job.agree(None):
        _, broken = _evaluate(cases[number], job)
        _end_if(broken)
        job.follow(cases[number].device)


def _lead(cases: Sequence[Case], job: Job, writer: Writer, tell: Tell) -> Outcome:
    """Measure what is missing, then what failed before."""
    again = partial(job.calibrate_again, cases[0].device)
    ceilings = RunCeilings(writer.header, writer.records.values(), again)
    keys = [_key(case, writer.header) for case in cases]
    known = [writer.records.get(key) for key in keys]
    todo = [number for number, found in enumerate(known) if found is None]
    todo += [number for number, found in enumerate(known) if found and found["status"] == "error"]
    counts = [guarded(count_and_predict, cases[number], ceilings.best) for number in todo]
    job.agree(todo)
    for place, (number, counted) in enumerate(zip(todo, counts, strict=True), start=1):
        case = cases[number]
        tell(f"{place}/{len(todo)} {case.label}")
        measured, broken = _evaluate(case, job)
        about = {**describe(case, writer.header), "key": keys[number], "processes": job.world}
        record = {**about, **counted, **measured}
        writer.append(record | ceilings.judge(record, partial(_told, case)))
        _end_if(broken)
        job.go_on()
    return Outcome([writer.records[key] for key in keys], len(todo), 0)


def _told(case: Case, ceilings: Ceilings) -> dict[str, Any]:
    """What a record says of its case by other ceilings."""
    fields = guarded(count_and_predict, case, ceilings)
    return {name: fields[name] for name in ("ceiling_ms",) if name in fields}


def _evaluate(case: Case, job: Job) -> tuple[dict[str, Any], str]:
    """A measurement, wrong if that of any process is.

    Returns:
        Its fields; and if a process failed while others waited for it, what it said: they cannot
        exchange anything any more.
    """
    found = guarded(measure, case, job)
    words = job.all_of((found["status"], found["reason"]))
    wrong = {rank: word for rank, word in enumerate(words) if word[0] != "ok"}
    waited = [rank for rank, (_, reason) in wrong.items() if reason.startswith(WAITED_IN_VAIN)]
    for rank, (status, reason) in wrong.items():
        if rank not in waited:
            said = f"process {rank}: {reason}"
            return {**found, "status": status, "reason": said}, said if waited else ""
    return found, found["reason"] if waited else ""


def _end_if(broken: str) -> None:
    if broken:
        raise ValueError(
            f"{broken}; that is recorded, and the same command goes on with the other cases"
        )


def _key(case: Case, header: dict[str, Any]) -> str:
    alone = describe(case, header)["key"]
    return environment.content_hash([alone, "processes", case.world])


def measure(case: Case, job: Job) -> dict[str, Any]:
    """Measure one evaluation of a case, on all processes at once.

    Returns:
        Fields as ``bench.measuring.measure.measure`` has them; ``peak_bytes`` is the most of any
        process.
        ``communication_ms``: mean over the processes of what a call waited for the others.
    """
    clock = PhaseClock(case.device)
    world = losses.World(waiting=partial(clock, WAITING))
    call = case_call(case, _loss(case, world), _own_inputs(case, job.rank))
    peak, result = peak_and_result(call, case.device)  # also warms up
    del result
    clock.take()
    samples, waited, result = _sample(call, case.device, clock, job)
    return {
        "peak_bytes": int(job.most(peak)),
        **summarise(samples),
        "communication_ms": median(waited),
        **_check(case, tuple(each.detach() for each in result), world, job),
    }


def _loss(case: Case, world: losses.World) -> Callable[..., Tensor]:
    if case.is_share:
        return create_share(case, world)
    loss: Any = create_loss(case)
    return losses.distribute(loss, case.distribution, world)


def _own_inputs(case: Case, rank: int) -> tuple[Tensor, ...]:
    """A process's part of the views of all; of its own loss, what that is given."""
    if case.distribution == "local":
        return make_inputs(case)
    own = (view[rank * case.batch :][: case.batch] for view in make_inputs(_global(case)))
    return tuple(view.clone() for view in own)


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


def _check(case: Case, output: tuple[Tensor, ...], world: losses.World, job: Job) -> dict[str, Any]:
    """``check`` against fp64 of the samples of all processes, by the first of them."""
    if case.distribution == "local":
        return check(case, output)
    value, *own = output
    gradients: tuple[Tensor, ...] = ()
    if own:  # each process has W times the gradient of its own samples, see losses.distributed
        gradients = (world.gather(torch.stack(own)) / world.size).unbind()
    first, mine = job.all_of(value.item())[0], value.item()
    if world.rank == 0:
        return check(_global(case), (value, *gradients))
    if math.isclose(mine, first, rel_tol=VALUE_TOLERANCE[case.dtype]):
        return {"status": "ok", "reason": ""}
    return {"status": "invalid", "reason": f"the value is {mine:.6g}; process 0 has {first:.6g}"}
