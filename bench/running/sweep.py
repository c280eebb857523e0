"""A sweep: a list of cases, most important first, to a run file. Resumable, budgeted."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from lossbench.bench.cases.case import Case
from lossbench.bench.cases.contenders import foreign_code
from lossbench.bench.cases.inputs import identity
from lossbench.bench.cases.suites import ALONE, CHECK, USE
from lossbench.bench.measuring import spin
from lossbench.bench.measuring.disturbance import count_disturbed, is_mostly
from lossbench.bench.predicting.calibrate import calibrate
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.predicting.recalibrate import RunCeilings
from lossbench.bench.records import environment
from lossbench.bench.records.failures import OUT_OF_BUDGET, is_broken, is_limit
from lossbench.bench.records.runfile import SCHEMA, StaleRunError, Writer, set_aside
from lossbench.bench.running import groups, sittings
from lossbench.bench.running.budget import Clock
from lossbench.bench.running.job import Job
from lossbench.bench.running.revisits import Revisits, wants_more
from lossbench.bench.running.worker import Worker


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

    def tell(self, line: str) -> None:
        """Something happened that the user should know."""


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
    is_alone: bool = True,
) -> tuple[Writer, Path | None]:
    """Open a run file for this machine and code.

    Args:
        path: the run file.
        device: "cpu" or "cuda".
        restart: set a file of other code or another environment aside and start anew.
        facts: further ones of the environment, such as the memory of a device that is emulated.
        calibration: makes that of a new file; default: of a single process.
        is_alone: False where other processes of ours compute meanwhile, or nothing is measured:
            then the machine is not tested for other work. On a GPU it never is, whose time is not
            the CPU's.

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
        **({"spin": spin.spin().describe()} if is_alone and device == "cpu" else {}),
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
    facts = {"processes": job.world}
    return open_run(path, device, restart, facts, lambda: found, is_alone=False)


def sweep(
    cases: Sequence[Case],
    writer: Writer,
    limits: Limits,
    progress: Progress,
    paired: bool = False,
    errors: bool = False,
    energy: bool = False,
    worker: Worker | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Measure the cases that the run file does not hold yet, and try failed ones again.

    A case that does not fit in the budget is counted, which is quick, but not measured.

    Args:
        cases: what to measure, most important first.
        writer: the run file.
        limits: when to stop.
        progress: told what happens.
        paired: time the cases of a group in turn, so that their ratios can be believed.
        errors: measure the errors of value and gradient on three kinds of inputs.
        energy: measure the energy of a call.
        worker: what measures; default: a child process.
        now: what time it is, in seconds.
    """
    keys: dict[str, Case] = {}
    for case in cases:
        keys.setdefault(case_key(case, writer.header), case)
    worker = worker or Worker(cases[0].device, limits.memory_bytes)
    wanted = {"errors": errors, "energy": energy}
    session = _Session(keys.values(), writer, limits, progress, paired, wanted, worker, now)
    try:
        session.begin()
        batches = together(list(keys.values()), paired)
        for number, batch in enumerate(batches):
            session.run(batch, itertools.chain(*batches[number + 1 :]))
        session.end()
    finally:
        worker.stop()
    return Outcome([writer.records[key] for key in keys], session.measured, session.left)


class _Session:
    """Runs what is timed together, one batch after the other."""

    def __init__(
        self,
        cases: Iterable[Case],
        writer: Writer,
        limits: Limits,
        progress: Progress,
        paired: bool,
        wanted: dict[str, bool],
        worker: Worker,
        now: Callable[[], float],
    ) -> None:
        self._writer, self._limits, self._progress = writer, limits, progress
        self._paired, self._wanted = paired, wanted
        self._unprepared: dict[str, list[Case]] = {}
        for case in cases:
            if case.device == "cuda":
                self._unprepared.setdefault(_prepared_with(case), []).append(case)
        self._worker, self._clock = worker, Clock(limits.budget_s, paired, now)
        known = writer.records.values()
        self._ceilings = RunCeilings(writer.header, known, self._calibrate_again)
        self._spin = spin.of(writer.header.get("spin"))
        self._again = Revisits(
            worker,
            limits.timeout_s,
            lambda: self._clock.left_s,
            progress.start,
            lambda case, why: progress.tell(f"{case.label} is not sampled again: {why}"),
            lambda record: self._save([record]),
            self._finish,
        )
        self._new: dict[str, dict[str, Any]] = {}
        self.measured = self.left = 0

    def begin(self) -> None:
        """Say whether the machine is busy."""
        if self._spin and self._spin.warning:
            self._progress.tell(self._spin.warning)

    def end(self) -> None:
        """Finish, and say whether it still is, or was for much of the time, and what that did."""
        self._again.finish()
        disturbed, samples = count_disturbed(self._new.values())
        if not self._spin or not samples:
            return
        latest = self._spin if self._paired else spin.spin()  # or that after the last group
        signs = latest.signs
        if signs or is_mostly(disturbed, samples):
            seen = f"is still busy: {', '.join(signs)}" if signs else "was busy"
            counted = f"{disturbed} of {samples} samples stayed disturbed"
            self._progress.tell(f"the machine {seen}; {counted}; measure again when it is quieter")

    def run(self, batch: Sequence[Case], later: Iterable[Case] = ()) -> None:
        """Evaluate cases one by one, then time them in turn. What is known is on the disk at once.

        Of a batch that was begun in an earlier session only what is missing is done.

        Args:
            batch: the cases.
            later: those of later batches, for which some of the budget is kept.
        """
        paired = in_turn(batch, self._paired)
        found = [self._writer.records.get(case_key(case, self._writer.header)) for case in batch]
        if are_done(batch, found, self._paired, **self._wanted):
            for case, record in zip(batch, found, strict=True):
                self._skip(case, dict(record or {}))
            return
        of_stage = self._unprepared.pop(_prepared_with(batch[0]), None)
        if of_stage and self._clock.left_s > 0:
            told = self._worker.prepare(of_stage, self._limits.timeout_s)
            if "status" in told:
                self._progress.tell(f"kernels are not compiled ahead: {told['reason']}")
        pairs = zip(batch, found, strict=True)
        records = [self._evaluate(case, old, paired) for case, old in pairs]
        if paired:
            self._compare(batch, records, later)
        for case, record in zip(batch, records, strict=True):
            if self._paired:
                self._progress.finish(case, record)
            else:
                self._again.add(case, record)

    def _skip(self, case: Case, record: dict[str, Any]) -> None:
        """Measured in an earlier session, which may have ended between the visits of a case."""
        if self._paired or not wants_more(record) or self._clock.left_s <= 0:
            self._progress.skip(case)
        else:
            self.measured += 1
            self._again.add(case, record)

    def _finish(self, case: Case, record: dict[str, Any]) -> None:
        """Of a case that is timed alone no more samples come."""
        if record.get("moments", 1) > 1:
            for name in ("fraction_of_ceiling", "ceiling_raised"):  # of fewer samples
                record.pop(name, None)
            self._judge(case, record)
            self._save([record])
        self._progress.finish(case, record)

    def _evaluate(self, case: Case, old: dict[str, Any] | None, paired: bool) -> dict[str, Any]:
        self._progress.start(case)
        if _is_done(old, **self._wanted):
            self.measured += 1
            return dict(old or {})
        fits = self._clock.allows(case)
        self.measured, self.left = self.measured + fits, self.left + (not fits)
        how = {
            **self._wanted,
            "measure": fits,
            "sample": not self._paired,
            "surrounded": case.stage == USE,
            "ceilings": self._ceilings.best,
        }
        fields = self._worker.evaluate(case, self._limits.timeout_s, **how)
        if not fits:
            fields = {**fields, "status": "timeout", "reason": OUT_OF_BUDGET}
        record = {**describe(case, self._writer.header), **fields, **self._beside(fields)}
        if not paired:
            self._judge(case, record)
        self._save([record])
        self._clock.learn(case, record)
        if is_broken(record):
            self._worker.stop()  # what comes next gets a device that works
        return record

    def _compare(
        self, batch: Sequence[Case], records: list[dict[str, Any]], later: Iterable[Case]
    ) -> None:
        if all(record["reason"] == OUT_OF_BUDGET for record in records):
            return
        self._progress.compare(batch)
        known, header = self._writer.records, self._writer.header
        missing = [
            case
            for case in later
            if not _is_done(known.get(case_key(case, header)), **self._wanted)
        ]
        later_s = self._clock.least_s(missing, groups.MIN_ROUNDS)
        short = sittings.compare(
            self._worker,
            batch,
            records,
            self._limits.timeout_s,
            sittings.Room(lambda: self._clock.left_s, later_s),
            lambda: self._save(records),
            known.values,
        )
        self._spin = spin.spin() if self._spin else None
        if short:
            self._progress.tell(f"{short}, from {batch[0].label} on")
        cut = sum(r["status"] == "ok" and r.get("pair_cut", True) for r in records)
        self.measured, self.left = self.measured - cut, self.left + cut
        for case, record in zip(batch, records, strict=True):
            self._judge(case, record)
            record.update(self._beside(record))
        self._worker.stop()  # the next group starts in a fresh process
        self._save(records)

    def _beside(self, record: dict[str, Any]) -> dict[str, Any]:
        """What the latest test of the machine said, where something was timed."""
        return self._spin.fields() if self._spin and "samples_ms" in record else {}

    def _judge(self, case: Case, record: dict[str, Any]) -> None:
        """Hold a record against the ceilings."""

        def told(ceilings: Ceilings) -> dict[str, Any]:
            how = {"measure": False, "ceilings": ceilings}
            fields = self._worker.evaluate(case, self._limits.timeout_s, **how)
            return {name: fields[name] for name in ("ceiling_ms",) if name in fields}

        record.update(self._ceilings.judge(record, told))

    def _calibrate_again(self) -> Ceilings:
        self._progress.tell("a result beats the ceilings: they are measured again")
        self._worker.stop()  # so that nothing else is on the device
        return calibrate(self._writer.header["environment"]["device"])

    def _save(self, records: Sequence[dict[str, Any]]) -> None:
        """Append what is new: of several records of a case the last one counts."""
        for record in records:
            if self._writer.records.get(record["key"]) != record:
                self._writer.append(dict(record))
                self._new[record["key"]] = record


def describe(case: Case, header: dict[str, Any]) -> dict[str, Any]:
    """Fields of a record that say what it is of."""
    key = case_key(case, header)
    return {"key": key, **case.describe(), "inputs_id": identity(case.inputs, case.device)}


def _prepared_with(case: Case) -> str:
    """Cases whose kernels are compiled together; those that are right or wrong share most."""
    return CHECK if case.stage in ALONE else case.stage


def in_turn(batch: Sequence[Case], paired: bool) -> bool:
    """Whether the cases of a batch are timed in turn."""
    return paired and batch[0].stage not in ALONE


def together(cases: Sequence[Case], paired: bool) -> list[list[Case]]:
    """Batches: cases that are timed in turn, each of the others alone."""
    return groups.group(cases) if paired else [[case] for case in cases]


def are_done(
    batch: Sequence[Case],
    records: Sequence[dict[str, Any] | None],
    paired: bool,
    errors: bool,
    energy: bool,
) -> bool:
    """Whether measuring the cases of a batch again would give the same."""
    if not all(_is_done(record, errors, energy) for record in records):
        return False
    return not in_turn(batch, paired) or groups.is_complete(records)


def _is_done(record: dict[str, Any] | None, errors: bool, energy: bool) -> bool:
    """Whether trying again would give the same: a lack of time or memory may pass."""
    if record is None:
        return False
    if record["status"] == "error" and (record.get("contender") or record.get("origin")):
        return True  # its code is in its key
    if is_limit(record):
        return True
    if record["status"] not in ("ok", "invalid", "unsupported"):
        return False
    asked = {"accuracy": errors, "energy_mj": energy and record["device"] == "cuda"}
    missing = any(wanted and name not in record for name, wanted in asked.items())
    return record["status"] != "ok" or not missing


def case_key(case: Case, header: dict[str, Any]) -> str:
    """Content key of a record: equal only if the same code measured the same case here."""
    fields = {**case.describe(), "inputs": identity(case.inputs, case.device)}
    return environment.content_hash(
        [fields, foreign_code(case), header["code_hash"], header["environment_hash"]]
    )
