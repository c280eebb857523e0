"""A sweep: a list of cases, most important first, to a run file. Resumable, budgeted."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from lossbench.bench.cases import contenders
from lossbench.bench.cases.case import Case
from lossbench.bench.cases.inputs import identity
from lossbench.bench.predicting.calibrate import calibrate
from lossbench.bench.predicting.ceilings import Ceilings, of_ceiling
from lossbench.bench.records import environment
from lossbench.bench.records.failures import OUT_OF_BUDGET
from lossbench.bench.records.runfile import SCHEMA, StaleRunError, Writer, set_aside
from lossbench.bench.running import groups
from lossbench.bench.running.job import Job
from lossbench.bench.running.worker import Worker

CALLS_PER_CASE = 4
"""Calls that a slow case makes: warm-up with memory, samples, fp64 check. Estimates what fits."""


@dataclass(frozen=True)
class Limits:
    """When to stop.

    Attributes:
        budget_s: seconds after which no further case is started.
        timeout_s: seconds after which a case is given up.
        memory_bytes: what a case may allocate on the CPU; default: most of what is free.
    """

    budget_s: float = float("inf")
    timeout_s: float = 600.0
    memory_bytes: int | None = None


class Progress(Protocol):
    """What a sweep tells while it runs."""

    def skip(self, case: Case) -> None:
        """The case was measured in an earlier session."""

    def start(self, case: Case) -> None:
        """The case is about to run."""

    def compare(self, cases: Sequence[Case]) -> None:
        """The cases of a group are about to be timed in turn."""

    def finish(self, case: Case, record: dict[str, Any]) -> None:
        """The case ended, and its record is on the disk."""


@dataclass(frozen=True)
class Outcome:
    """What a sweep did.

    Attributes:
        records: records of the asked cases that are in the run file, earlier sessions' included.
        measured: how many of them this session measured.
        left: cases that the budget left out.
        missing: cases without a record, because the job that was to measure them failed.
        failed: whether a job failed.
    """

    records: list[dict[str, Any]]
    measured: int
    left: int
    missing: int = 0
    failed: bool = False


def open_run(
    path: Path,
    device: str,
    restart: bool = False,
    facts: Mapping[str, Any] | None = None,
    calibration: Callable[[], dict[str, Any]] | None = None,
) -> tuple[Writer, Path | None]:
    """Open a run file for this machine and code.

    Args:
        path: the run file.
        device: "cpu" or "cuda".
        restart: set a file of other code or another environment aside and start anew.
        facts: further ones of the environment, such as the memory of a device that is emulated.
        calibration: makes that of a new file; default: of a single process.

    Returns:
        The writer, and the path of a file that was set aside.
    """
    described = {**environment.describe(device, torch.get_num_threads()), **(facts or {})}
    header = {
        "schema": SCHEMA,
        "environment": described,
        "environment_hash": environment.content_hash(described),
        **environment.source_state(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

    def new() -> Writer:
        found = calibration() if calibration else calibrate(device).describe()
        return Writer(path, {**header, "calibration": found})

    if not path.exists():
        return new(), None
    try:
        return Writer(path, header), None
    except StaleRunError:
        if not restart:
            raise
        aside = set_aside(path)
        return new(), aside


def open_together(
    job: Job, path: Path, device: str, restart: bool
) -> tuple[Writer | None, Path | None]:
    """``open_run`` by the first process of a job; a new file's calibration is made by all at once.

    Args:
        job: this process among others.
        path: the run file; one holds runs of as many processes.
        device: "cpu" or "cuda".
        restart: as ``open_run`` takes it.

    Returns:
        As ``open_run``; on other processes nothing.
    """
    if job.world == 1:
        return open_run(path, device, restart, None, partial(job.calibration, device))
    found = job.calibration(device)
    if job.rank:
        return None, None
    return open_run(path, device, restart, {"processes": job.world}, lambda: found)


def sweep(
    cases: Sequence[Case],
    writer: Writer,
    limits: Limits,
    progress: Progress,
    paired: bool = False,
    errors: bool = False,
) -> Outcome:
    """Measure the cases that the run file does not hold yet, and try failed ones again.

    A case that does not fit in the budget is counted, which is quick, but not measured.

    Args:
        cases: what to measure, most important first.
        writer: the run file.
        limits: when to stop.
        progress: told what happens.
        paired: time the cases of a group in turn, so that their ratios can be believed; a group is
            recorded when all of it is done.
        errors: measure the errors of value and gradient on three kinds of inputs.
    """
    ceilings = Ceilings.of(writer.header.get("calibration"))
    keys = {case_key(case, writer.header): case for case in cases}
    batches = in_turn(list(keys.values()), paired)
    clock = _Clock(limits.budget_s)
    worker = Worker(cases[0].device, limits.memory_bytes)
    measured = left = 0
    try:
        for batch in batches:
            found = [writer.records.get(case_key(case, writer.header)) for case in batch]
            if are_done(found, paired, errors):
                for case in batch:
                    progress.skip(case)
                continue
            records = []
            for case in batch:
                progress.start(case)
                fits = clock.allows(case)
                how = {
                    "measure": fits,
                    "sample": not paired,
                    "errors": errors,
                    "ceilings": ceilings,
                }
                records.append(_record(case, writer.header, worker, limits, how))
                measured, left = measured + fits, left + (not fits)
            if paired:
                progress.compare(batch)
                groups.compare(worker, batch, records, limits.timeout_s)
                worker.stop()  # the next group starts in a fresh process
            for case, record in zip(batch, records, strict=True):
                record.update(of_ceiling(record))
                writer.append(record)
                clock.learn(case, record)
                progress.finish(case, record)
    finally:
        worker.stop()
    return Outcome([writer.records[key] for key in keys], measured, left)


def _record(
    case: Case, header: dict[str, Any], worker: Worker, limits: Limits, how: dict[str, Any]
) -> dict[str, Any]:
    """A case's description, counts and, if it is to be measured, measurement."""
    fields = worker.evaluate(case, limits.timeout_s, **how)
    if not how["measure"]:
        fields = {**fields, "status": "timeout", "reason": OUT_OF_BUDGET}
    return {**describe(case, header), **fields}


def describe(case: Case, header: dict[str, Any]) -> dict[str, Any]:
    """Fields of a record that say what it is of."""
    key = case_key(case, header)
    return {"key": key, **case.describe(), "inputs_id": identity(case.inputs, case.device)}


def in_turn(cases: Sequence[Case], paired: bool) -> list[list[Case]]:
    """Cases that are timed together: groups if they are paired, else each alone."""
    return groups.group(cases) if paired else [[case] for case in cases]


def are_done(records: Sequence[dict[str, Any] | None], paired: bool, errors: bool) -> bool:
    """Whether measuring cases that are timed together again would give the same."""
    if not all(_is_done(record, errors) for record in records):
        return False
    return not paired or groups.is_complete(records)


def _is_done(record: dict[str, Any] | None, errors: bool) -> bool:
    """Whether trying again would give the same: a lack of time or memory may pass."""
    if record is None:
        return False
    if record["status"] == "error" and record.get("contender"):
        return True  # its code is in its key
    if record["status"] not in ("ok", "invalid", "unsupported"):
        return False
    return not errors or record["status"] != "ok" or "accuracy" in record


def case_key(case: Case, header: dict[str, Any]) -> str:
    """Content key of a record: equal only if the same code measured the same case here."""
    fields = {**case.describe(), "inputs": identity(case.inputs, case.device)}
    if case.contender:
        fields["contender"] = contenders.identity(case.contender)
    return environment.content_hash([fields, header["code_hash"], header["environment_hash"]])


class _Clock:
    """Decides whether a case still fits, from the speed of those before it."""

    def __init__(self, budget_s: float) -> None:
        self._end = time.monotonic() + budget_s
        self._macs_per_ms = 0.0
        self._promised_s = 0.0

    def learn(self, case: Case, record: dict[str, Any]) -> None:
        """Remember the fastest arithmetic seen."""
        self._promised_s = 0.0
        if record["status"] == "ok":
            rate = case.cost.macs(case.pass_) / record["median_ms"]
            self._macs_per_ms = max(self._macs_per_ms, rate)

    def allows(self, case: Case) -> bool:
        """Whether the case, and the rounds of those before it in its group, fit in the budget."""
        call_s = 0.0
        if self._macs_per_ms:
            call_s = case.cost.macs(case.pass_) / self._macs_per_ms / 1e3
        needed_s = self._promised_s + CALLS_PER_CASE * call_s
        fits = time.monotonic() + needed_s < self._end
        self._promised_s += fits * groups.MIN_ROUNDS * call_s
        return fits
