"""A pretraining run from its first step to its record."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from bench import nvml
from bench.ceilings import Ceilings
from bench.environment import content_hash
from bench.failures import describe_failure
from bench.job import ALONE, Job
from bench.memory import peak_and_result
from bench.pretraining import checkpoint, throughput
from bench.pretraining.batches import Batches
from bench.pretraining.config import Config
from bench.pretraining.evaluate import evaluate, settle_norms
from bench.pretraining.images import open_images
from bench.pretraining.models import encoder
from bench.pretraining.trainer import Trainer
from bench.ratios import noise

WARM = 3
"""Steps that pay for warming up, and for looking at memory; they are not timed."""
PAIRS = 5
"""Steps in turn that an interval needs at least."""
WORKERS = 2
"""Threads that read images ahead where they are not in memory."""
NAMED = 20
"""Images that could not be read, by name: more of them are only counted."""
ON_NAN = ("stop", "skip")


class DivergedError(ValueError):
    """The loss is not finite."""


@dataclass(frozen=True)
class Plan:
    """How far a run goes and what it leaves behind; none of it changes what is trained.

    Attributes:
        steps: of the optimizer to end after; 0: the whole schedule.
        checkpoint: file to go on from and to keep; None: none.
        every: steps between checkpoints; 0: only at the end.
        on_nan: "stop", or "skip" the step, when the loss is not finite.
        evaluate: judge the features at the end, beside those of the untrained encoder.
    """

    steps: int = 0
    checkpoint: Path | None = None
    every: int = 0
    on_nan: str = "stop"
    evaluate: bool = False


class Progress(Protocol):
    """What a run tells as it goes."""

    def start(self, label: str, done: int, total: int) -> None:
        """Steps are about to be made."""

    def step(self, done: int, loss: float) -> None:
        """One was made."""


@dataclass
class Session:
    """A run that is going on.

    Attributes:
        trainer: what is trained.
        batches: where its images come from.
        plan: how far it goes.
        curve: loss of every step since the first.
        timed: milliseconds of each phase, and of the whole ``step``, in the steady state.
        memory: bytes by purpose.
        joules: used in those steps, if they are counted.
    """

    trainer: Trainer
    batches: Batches
    plan: Plan
    curve: list[float] = field(default_factory=list)
    timed: list[dict[str, float]] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    joules: float | None = None

    @property
    def end(self) -> int:
        """Step to end before."""
        return min(self.plan.steps or self.trainer.steps, self.trainer.steps)


def begin(config: Config, plan: Plan, device: str, job: Job = ALONE) -> Session:
    """Make everything, and go on from the checkpoint if there is one.

    Raises:
        ValueError: settings, images or a checkpoint that do not go together.
    """
    images = open_images(config.data, config.image_size, config.seed)
    batches = Batches(images, config.batch, config.seed, job.rank, job.world, WORKERS)
    steps = config.epochs * batches.steps_per_epoch // config.accumulation
    if steps < 1:
        raise ValueError(
            f"{config.epochs} epoch(s) of {len(images)} images are less than a step of "
            f"{config.accumulation} x {config.batch * job.world}; lower the batch or the "
            "accumulation"
        )
    trainer = Trainer(config, steps, device, job)
    session = Session(trainer, batches, plan)
    if plan.checkpoint is not None and plan.checkpoint.exists():
        state = checkpoint.load(plan.checkpoint, config, job.world, device)
        trainer.load(state)
        session.curve = list(state["curve"])
    return session


def pretrain(session: Session, progress: Progress) -> None:
    """Train up to the end of the plan.

    Raises:
        DivergedError: the loss is not finite and the plan says to stop.
        CheckpointError: a checkpoint could not be written; the one before is kept.
    """
    trainer = session.trainer
    progress.start(trainer.config.label, trainer.step, session.end)
    for loss in _steps(session):
        progress.step(trainer.step, loss)


def pretrain_in_turn(sessions: Sequence[Session], progress: Progress) -> None:
    """Train all a step at a time, to and fro (A B C, C B A, ...), so that drift hits all alike.

    Args:
        sessions: of as many steps each.
        progress: told of all steps as one run.

    Raises:
        DivergedError: a loss is not finite and the plan says to stop.
    """
    progress.start("in turn", 0, sum(session.end for session in sessions))
    training = [_steps(session) for session in sessions]
    for number in range(sessions[0].end):
        for place, each in enumerate(training if number % 2 == 0 else reversed(training)):
            progress.step(number * len(training) + place + 1, next(each))
    for each in training:
        next(each, None)  # what is left to do at its end


def _steps(session: Session) -> Iterator[float]:
    """Losses of the steps that are left, as they are made."""
    trainer, plan = session.trainer, session.plan
    first, before = trainer.step, None
    batches = session.batches.start(first * trainer.config.accumulation)
    while trainer.step < session.end:
        made = trainer.step - first
        if made == WARM:
            before = nvml.energy_mj(trainer.device)
        # by the second step the optimizer has its state, and code is compiled
        loss = _weighed(session, batches) if made == 1 else _timed(session, batches, made >= WARM)
        _check(session, loss)
        session.curve.append(loss)
        yield loss
        if plan.every and trainer.step % plan.every == 0 and trainer.step < session.end:
            save(session)
    after = nvml.energy_mj(trainer.device)
    if before is not None and after is not None:
        session.joules = (after - before) / 1e3
    save(session)


def _timed(session: Session, batches: Iterator[Tensor], keep: bool) -> float:
    start = time.perf_counter()
    loss = session.trainer.train_step(batches)
    phases = session.trainer.phases()
    if keep:
        session.timed.append({**phases, "step": (time.perf_counter() - start) * 1e3})
    return loss


def _weighed(session: Session, batches: Iterator[Tensor]) -> float:
    """A step whose memory is looked at."""
    trainer = session.trainer
    config = trainer.config
    with throughput.SavedBytes(trainer.forward) as saved:
        peak, loss = peak_and_result(lambda: trainer.train_step(batches), trainer.device)
    trainer.phases()
    states = throughput.state_bytes(trainer.network, trainer.optimizer)
    live = states["parameter_bytes"] + states["optimizer_bytes"]  # gradients are made in the step
    session.memory = {
        **states,
        "activation_bytes": saved.bytes // config.accumulation,
        "loss_bytes": throughput.loss_bytes(trainer.loss, config, trainer.device),
        "peak_bytes": live + peak,
    }
    return loss


def _check(session: Session, loss: float) -> None:
    """Stop where the loss is not finite, and say where to go on from."""
    if math.isfinite(loss) or session.plan.on_nan == "skip":
        return
    path = session.plan.checkpoint
    kept = (
        f"the last good checkpoint is {path}"
        if path and path.exists()
        else "no checkpoint was kept"
    )
    raise DivergedError(
        f"the loss of {session.trainer.config.label} is {loss} at step {session.trainer.step - 1}; "
        f"{kept}; lower the learning rate, or --on-nan skip"
    )


def save(session: Session) -> None:
    """Keep a checkpoint, if the plan says so."""
    trainer = session.trainer
    if session.plan.checkpoint is not None and trainer.job.rank == 0:
        state = {**trainer.state(), "curve": session.curve}
        checkpoint.save(session.plan.checkpoint, trainer.config, trainer.job.world, state)


def record(session: Session, ceilings: Ceilings | None) -> dict[str, Any]:
    """What the run cost: fields of ``throughput``, memory by purpose, losses.

    Raises:
        ValueError: too few steps were made to time one.
    """
    trainer = session.trainer
    config, world = trainer.config, trainer.job.world
    curve = [value if math.isfinite(value) else None for value in session.curve]
    lost = bool(curve) and curve[-1] is None
    fields: dict[str, Any] = {
        "status": "invalid" if lost else "ok",
        "reason": "the loss is not finite" if lost else "",
        "steps": trainer.step,
        "steps_skipped": trainer.skipped,
        "images_skipped": len(session.batches.skipped),
        "images_skipped_names": session.batches.skipped[:NAMED],
        "curve": curve,
        "value": curve[-1] if curve else None,
        **session.memory,
    }
    if not session.timed:
        return {**fields, "reason": f"not timed: fewer than {WARM + 1} steps were made now"}
    found = throughput.times(config, world, session.timed)
    images = len(session.timed) * config.batch * config.accumulation * world
    if session.joules is not None:
        found["joules_per_image"] = session.joules / images * world
    return {
        **fields,
        **found,
        **throughput.utilisation(config, found, world, ceilings),
        **throughput.schedule(config, world, found),
    }


def run(
    config: Config,
    plan: Plan,
    device: str,
    ceilings: Ceilings | None,
    progress: Progress,
    job: Job = ALONE,
) -> dict[str, Any]:
    """Train by a plan; what fails is said in the fields, but for settings that cannot be.

    Raises:
        ValueError: settings, images or a checkpoint that do not go together.
        DivergedError: the loss is not finite and the plan says to stop.
    """
    session = begin(config, plan, device, job)
    try:
        pretrain(session, progress)
    except (MemoryError, RuntimeError) as error:
        return {**describe_failure(error), "steps": session.trainer.step}
    fields = record(session, ceilings)
    if plan.evaluate and job.rank == 0:
        fields.update(judged(session))
    return fields


def run_in_turn(
    configs: Sequence[Config],
    plan: Plan,
    device: str,
    ceilings: Ceilings | None,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Train configurations in turn, so that the ratio of their steps can be believed.

    The first is trained a second time beside itself: by how much the two differ is the threshold
    below which no difference is claimed.

    Returns:
        Fields of each, as ``run`` has them, and what ``reports.comparison`` needs of pairs.

    Raises:
        ValueError: as ``run``; or fewer steps than can be timed.
    """
    sessions = [begin(config, plan, device) for config in (*configs, configs[0])]
    if sessions[0].end < WARM + PAIRS:
        raise ValueError(f"--paired needs {WARM + PAIRS} steps or more, got {sessions[0].end}")
    pretrain_in_turn(sessions, progress)
    for session in sessions:
        session.joules = None  # the counter ran while others trained
    found = [record(session, ceilings) for session in sessions]
    samples = [[each["samples_ms"]] for each in found]
    pair = {
        "pair_group": content_hash([time.time_ns(), *(config.describe() for config in configs)]),
        "pair_processes": 1,
        "pair_noise": noise(samples[0], samples[-1]),
    }
    return [{**fields, **pair} for fields in found[:-1]]


def judged(session: Session) -> dict[str, Any]:
    """``bench.pretraining.evaluate`` of the encoder, and ``untrained_...`` of one as it began."""
    trainer, images = session.trainer, session.batches.images
    torch.manual_seed(trainer.config.seed)
    untrained = encoder(trainer.config).to(trainer.device)
    settle_norms(untrained, images, trainer.device)
    before = evaluate(untrained, images, trainer.device)
    return {
        **evaluate(trainer.network.encoder, images, trainer.device),
        **{f"untrained_{name}": value for name, value in before.items()},
    }
