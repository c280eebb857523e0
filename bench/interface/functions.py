"""What the commands do, on cases and settings: for the command line and for Python alike."""

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lossbench.bench.cases.case import Case
from lossbench.bench.cases.contenders import is_foreign
from lossbench.bench.counting import counting
from lossbench.bench.interface.console import say
from lossbench.bench.interface.progress import Jobs, Report, Trials, tracked
from lossbench.bench.predicting.devices import choose
from lossbench.bench.predicting.predict import Device, Predictor
from lossbench.bench.records.failures import OUT_OF_BUDGET
from lossbench.bench.records.runfile import Writer
from lossbench.bench.running import rehearsal, trial
from lossbench.bench.running.distributed import measure_together
from lossbench.bench.running.frontier import Frontier, Search, device_bytes, kinds
from lossbench.bench.running.launch import Launcher
from lossbench.bench.running.rehearsal import Timeline
from lossbench.bench.running.shards import Work, share
from lossbench.bench.running.sweep import (
    Limits,
    Outcome,
    are_done,
    case_key,
    open_run,
    sweep,
    together,
)
from lossbench.bench.running.worker import Worker

Record = dict[str, Any]
COUNT_S = 600.0
"""Seconds after which counting a third party's loss is given up."""


def count(cases: Sequence[Case]) -> list[Record]:
    """Count cases exactly; a third party's code runs in a process of its own."""
    worker = Worker(cases[0].device)

    def counted(case: Case) -> Record:
        if is_foreign(case):
            return worker.evaluate(case, COUNT_S, measure=False)
        return counting.count(case)

    records = [{**case.describe(), **counted(case)} for case in cases]
    worker.stop()
    return records


def predict(
    cases: Sequence[Any], gpus: Sequence[str], spec: Path | None, link: str
) -> tuple[list[Record], list[Device]]:
    """Predict cases, or steps of pretraining, for devices.

    Args:
        cases: all of them cases, or all of them steps.
        gpus: names of GPUs that need not be here, or "all"; none: the device at hand.
        spec: file of further datasheets.
        link: between devices, "" for none.

    Returns:
        A record for each case and device, and the devices.

    Raises:
        ValueError: an unknown GPU or link, or steps of several devices without a link.
    """
    steps = not isinstance(cases[0], Case)
    if steps and not link and any(case.world > 1 for case in cases):
        raise ValueError("devices that train together send gradients: add --link ib400")
    devices = choose(gpus, spec, link, cases[0].device)
    predictor: Any = Predictor()
    if steps:
        from lossbench.bench.pretraining.scaling import StepPredictor

        predictor = StepPredictor()
    tried = [case.case if steps else case for case in cases]
    failed = trial.failures(tried, measure=False, trains=steps)
    work = [(*each, device) for each in zip(cases, failed, strict=True) for device in devices]
    records = [
        {**case.describe(), "gpu": device.name, **failure}
        if failure
        else predictor.predict(case, device)
        for case, failure, device in tracked(work, "predicting")
    ]
    return records, devices


def run(
    cases: Sequence[Case],
    out: Path,
    restart: bool = False,
    launcher: Launcher | None = None,
    budget_s: float = float("inf"),
    timeout_s: float = 600.0,
    paired: bool = False,
    errors: bool = False,
    energy: bool = False,
) -> Outcome:
    """Measure cases into a run file: here, in jobs, or as one of torchrun's processes.

    Args:
        cases: what to measure, most important first.
        out: the run file, which is continued if it is there.
        restart: set a run file of other code or of another environment aside.
        launcher: what starts jobs; the budget is then each job's own.
        budget_s: seconds after which no further case is started.
        timeout_s: seconds after which a case is given up.
        paired: time cases of a group in turn, so that their ratios can be believed.
        errors: measure the errors of value and gradient on three kinds of inputs.
        energy: measure the energy of a call.

    Raises:
        RunFileError: the run file cannot be read or written, or comes from other code.
        ValueError: what does not go together.
    """
    how: dict[str, Any] = {
        "budget_s": budget_s,
        "timeout_s": timeout_s,
        "paired": paired,
        "errors": errors,
        "energy": energy,
    }
    if are_many():
        if launcher or paired or errors or energy or budget_s != float("inf"):
            raise ValueError(
                "several processes measure all cases, one by one: leave --paired, --accuracy, "
                "--energy, --frontier, --memory, --budget and --launcher out"
            )
        return measure_together(cases, out, restart, say)
    if launcher:
        return _share(launcher, cases, out, restart, how)
    return measure(cases, out, restart, **how)


def rehearse(cases: Sequence[Case], budget_s: float, **how: bool) -> Timeline:
    """Go through ``run`` on paper, see ``bench.running.rehearsal``.

    Raises:
        ValueError: cases of another device than a GPU.
    """
    if any(case.device != "cuda" for case in cases):
        raise ValueError("--dry-run is for a GPU that is not here: leave --device cpu out")
    return rehearsal.rehearse(cases, budget_s, **how)


def are_many() -> bool:
    """Whether this is one of the processes that torchrun started."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def measure(
    cases: Sequence[Case], out: Path, restart: bool, budget_s: float, timeout_s: float, **how: Any
) -> Outcome:
    """Measure cases here, see ``bench.running.sweep.sweep``."""
    end = time.monotonic() + budget_s
    writer = _open(cases, out, restart)
    limits = Limits(budget_s=end - time.monotonic(), timeout_s=timeout_s)
    with writer, Report(cases) as report:
        return sweep(cases, writer, limits, report, **how)


def _share(
    launcher: Launcher, cases: Sequence[Case], out: Path, restart: bool, how: dict[str, Any]
) -> Outcome:
    """Measure cases in jobs; the budget is each job's own."""
    if launcher.tasks > 1:
        raise ValueError("run measures one device: --slurm nodes, tasks_per_node are for pretrain")
    units = together(cases, how["paired"])
    work = Work(
        units,
        case_key,
        lambda unit, found: are_done(unit, found, how["paired"], how["errors"], how["energy"]),
        partial(measure, restart=False, **how),
    )
    with Jobs() as progress:
        shared = share(launcher, work, out, restart, progress)
    order = [cases.index(case) for unit in units for case in unit]
    found = [shared.records[order.index(place)] for place in range(len(cases))]
    records = list({record["key"]: record for record in found if record}.values())
    left = sum(record["reason"] == OUT_OF_BUDGET for record in records)
    return Outcome(records, shared.measured, left, found.count(None), shared.failed)


def noise(
    cases: Sequence[Case],
    out: Path,
    restart: bool,
    comparisons: int,
    slowdown: float,
    neighbour: bool,
    timeout_s: float,
) -> Iterator[tuple[Case, list[Record], str]]:
    """Compare cases with themselves into a run file, see ``bench.running.noise.sample``.

    Says on the way what is known so far.

    Yields:
        Each case, a record of each of its processes, and why it failed, if it did.
    """
    from lossbench.bench.comparing import trust
    from lossbench.bench.running.groups import PROCESSES
    from lossbench.bench.running.noise import processes, sample

    with _open(cases, out, restart) as writer:
        for case in cases:
            each, total = PROCESSES[case.device], processes(comparisons, case.device)
            work = sample(case, comparisons, slowdown, neighbour, timeout_s, writer)
            records: list[Record] = []
            failure = ""
            try:
                for record in tracked(work, f"{case.label}, process by process", total):
                    records.append(record)
                    if len(records) % each == 0 and len(records) < total:
                        found = trust.judge(trust.comparisons(records, each))
                        claims = f"{found.false_claims} false claims, {found.found} slowdowns found"
                        say(f"{found.comparisons} of {comparisons}: {claims}")
            except RuntimeError as error:  # the case failed: the others go on
                failure = str(error)
            yield case, records, failure


def check_frontier(frontier: bool, memory: object, more: object) -> None:
    """Refuse what does not go with a search for the largest batch, or with none.

    Args:
        frontier: whether it is searched for.
        memory: of an emulated device.
        more: what only measurements have.

    Raises:
        ValueError: they do not go together.
    """
    if memory and not frontier:
        raise ValueError("--memory is that of an emulated device: give it with --frontier")
    if frontier and more:
        raise ValueError(
            "--frontier times nothing, and runs here: leave --paired, --accuracy, --energy, "
            "--budget and --launcher out"
        )


def find_frontier(
    cases: Sequence[Case], out: Path, restart: bool, memory_bytes: int | None, timeout_s: float
) -> tuple[list[Frontier], int]:
    """Find the largest batch that fits, of each kind of case.

    Args:
        cases: whose batches do not matter.
        out: the run file, which gets a record of each trial.
        restart: as ``run`` takes it.
        memory_bytes: of an emulated device; None: most of what is free here.
        timeout_s: seconds after which a trial is given up.

    Returns:
        What was found, and the bytes that fitting means.
    """
    if are_many():
        raise ValueError("several processes find no frontier: leave --frontier and --memory out")
    work = kinds(cases)
    limit = device_bytes(cases[0].device, memory_bytes)  # before there is a file
    with _open(cases, out, restart, memory_bytes) as writer, Trials(len(work)) as trials:
        search = Search(writer, limit, timeout_s, trials)
        return [trials.search(search.run, case) for case in work], limit


def _open(
    cases: Sequence[Case], out: Path, restart: bool, memory_bytes: int | None = None
) -> Writer:
    facts = {"memory_limit_bytes": memory_bytes} if memory_bytes else None
    writer, aside = open_run(out, cases[0].device, restart, facts)
    if aside:
        say(f"{out} came from other code or another environment: kept as {aside}")
    return writer
