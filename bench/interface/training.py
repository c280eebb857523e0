"""What ``lossbench pretrain`` does, on settings: for the command line and for Python alike."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lossbench import losses
from lossbench.bench.interface.console import say
from lossbench.bench.interface.functions import are_many
from lossbench.bench.interface.progress import Jobs
from lossbench.bench.interface.steps import Steps
from lossbench.bench.measuring import spin
from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.predicting.recalibrate import RunCeilings
from lossbench.bench.pretraining import records, scaling, throughput
from lossbench.bench.pretraining.config import Config
from lossbench.bench.pretraining.run import run, run_in_turn
from lossbench.bench.pretraining.session import Plan
from lossbench.bench.records.environment import content_hash
from lossbench.bench.records.runfile import Writer
from lossbench.bench.running import trial
from lossbench.bench.running.job import ALONE, Job, joined
from lossbench.bench.running.launch import Launcher
from lossbench.bench.running.shards import Work, share
from lossbench.bench.running.sweep import open_together

Record = dict[str, Any]


def pretrain(
    configs: Sequence[Config],
    out: Path,
    plan: Plan,
    device: str,
    restart: bool = False,
    launcher: Launcher | None = None,
    paired: bool = False,
) -> tuple[list[Record], bool]:
    """Pretrain by each of the settings, into a run file.

    Args:
        configs: what is trained, one run each.
        out: the run file, which is continued if it is there.
        plan: how long, and what is kept.
        device: "cpu" or "cuda".
        restart: set a run file of other code or of another environment aside.
        launcher: what starts jobs.
        paired: make a step of each run in turn.

    Returns:
        The records, none on other processes of a job than the first; whether a job failed.

    Raises:
        RunFileError: the run file cannot be read or written, or comes from other code.
        ValueError: what does not go together.
    """
    if not paired:
        if launcher:
            return _share(launcher, configs, out, plan, device, restart)
        return _run_all(configs, out, plan, device, restart), False
    if launcher or plan.checkpoint or plan.evaluate or are_many():
        raise ValueError(
            "--paired times steps in one process: leave --launcher, --checkpoint, --evaluate "
            "and torchrun out"
        )
    return _run_in_turn(configs, out, plan, device, restart), False


def _share(
    launcher: Launcher,
    configs: Sequence[Config],
    out: Path,
    plan: Plan,
    device: str,
    restart: bool,
) -> tuple[list[Record], bool]:
    """Run in jobs, whose tasks are the processes of a run: the records, and whether one failed."""
    work = Work(
        [[config] for config in configs],
        lambda config, header: records.key(config, launcher.tasks, plan.steps, header),
        lambda _, found: _is_done(found[0], plan),
        partial(_run_all, plan=plan, device=device, restart=False),
    )
    with Jobs() as progress:
        shared = share(launcher, work, out, restart, progress)
    return [record for record in shared.records if record], shared.failed


def _run_all(
    configs: Sequence[Config], out: Path, plan: Plan, device: str, restart: bool
) -> list[Record]:
    """Run what the run file does not hold yet; the first process of a job writes it."""
    with joined(device) as job:
        writer, aside = open_together(job, out, device, restart)
        if writer is None:  # the first process has it
            for config in configs:
                if not job.agree(None):
                    _run(config, plan, device, None, Steps(quiet=True), job)
                    job.follow(device)
            return []
        _tell(out, aside, writer)
        found = []
        with writer, Steps() as progress:
            calibration = writer.header.get("calibration")
            ceilings = _ceilings(writer, job, device)
            for config in configs:
                key = records.key(config, job.world, plan.steps, writer.header)
                known = writer.records.get(key)
                if not job.agree(_is_done(known, plan)):
                    fields = _run(config, plan, device, ceilings.best, progress, job)
                    fields |= ceilings.judge(
                        fields, partial(throughput.utilisation, config, fields, job.world)
                    )
                    job.go_on()
                    runs = fields["status"] == "ok"
                    about = records.describe(config, device, job.world, runs)
                    told = scaling.expected(config, job.world, device, calibration) if runs else {}
                    writer.append({"key": key, **about, **told, **fields, **_beside(writer)})
                found.append(writer.records[key])
    return found


def _run_in_turn(
    configs: Sequence[Config], out: Path, plan: Plan, device: str, restart: bool
) -> list[Record]:
    """Run all a step at a time, unless the run file holds them."""
    writer, aside = open_together(ALONE, out, device, restart)
    assert writer is not None  # alone, this process has it
    _tell(out, aside, writer)
    with writer, Steps() as progress:
        single = [records.key(config, 1, plan.steps, writer.header) for config in configs]
        keys = [content_hash([key, single]) for key in single]
        if not all(_is_done(writer.records.get(key), plan) for key in keys):
            ceilings = _ceilings(writer, ALONE, device)
            found = _in_turn(configs, plan, device, ceilings.best, progress)
            for key, config, fields in zip(keys, configs, found, strict=True):
                told = partial(throughput.utilisation, config, fields, 1)
                fields |= ceilings.judge(fields, told)
                about = records.describe(config, device, 1, fields["status"] == "ok")
                writer.append({"key": key, **about, **fields, **_beside(writer)})
        return [writer.records[key] for key in keys]


def _in_turn(
    configs: Sequence[Config], plan: Plan, device: str, ceilings: Ceilings | None, progress: Steps
) -> list[Record]:
    """Fields of each run; those whose loss fails when it is tried are left out of the turn."""
    cases = [records.loss_case(config, device, 1) for config in configs]
    failed = trial.failures(cases, trains=True)
    right = [config for config, failure in zip(configs, failed, strict=True) if not failure]
    made = iter(run_in_turn(right, plan, device, ceilings, progress) if right else ())
    return [failure or next(made) for failure in failed]


def _ceilings(writer: Writer, job: Job, device: str) -> RunCeilings:
    """Those of a run file, which all processes of the job measure again."""

    def again() -> Ceilings:
        say("the network beats the ceilings: they are measured again")
        return job.calibrate_again(device)

    return RunCeilings(writer.header, writer.records.values(), again)


def _tell(out: Path, aside: Path | None, writer: Writer) -> None:
    if aside:
        say(f"{out} came from other code or another environment: kept as {aside}")
    tested = spin.of(writer.header.get("spin"))
    if tested and tested.warning:
        say(tested.warning)


def _beside(writer: Writer) -> dict[str, float]:
    """What the test of the machine said before the run."""
    tested = spin.of(writer.header.get("spin"))
    return tested.fields() if tested else {}


def _is_done(known: Record | None, plan: Plan) -> bool:
    if known is None or known["status"] != "ok":
        return False
    return "probe_accuracy" in known or not plan.evaluate


def _run(config: Config, plan: Plan, device: str, *how: Any) -> Record:
    """A run with a checkpoint of its own; of a loss that fails when it is tried, that it fails."""
    if not are_many():
        (failed,) = trial.failures([records.loss_case(config, device, 1)], trains=True)
        if failed:
            return failed
    name = f"{losses.spec(config.loss).name}-{config.implementation}.pt"
    path = plan.checkpoint / name if plan.checkpoint else None
    return run(config, replace(plan, checkpoint=path), device, *how)
