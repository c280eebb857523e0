"""Training by a plan: steps that are timed, checkpoints, what happens when the loss is lost."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from lossbench.bench.measuring import nvml
from lossbench.bench.measuring.disturbance import Stretch, Watch, describe
from lossbench.bench.measuring.memory import peak_and_result
from lossbench.bench.pretraining import checkpoint, throughput
from lossbench.bench.pretraining.batches import Batches
from lossbench.bench.pretraining.config import Config
from lossbench.bench.pretraining.evaluate import check_labels
from lossbench.bench.pretraining.images import open_images
from lossbench.bench.pretraining.trainer import Trainer
from lossbench.bench.running.job import ALONE, Job
from lossbench.losses import pick

WARM = 3
"""Steps that pay for warming up, and for looking at memory; they are not timed."""
WORKERS = 2
"""Threads that read images ahead where they are not in memory."""
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

    def __post_init__(self) -> None:
        for name in ("steps", "every"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must be 1 or more, got {getattr(self, name)}")
        if self.every and self.checkpoint is None:
            raise ValueError("--every is of checkpoints: give --checkpoint FOLDER too")
        pick("--on-nan", self.on_nan, ON_NAN)


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
        stretches: what this process got of the machine in those steps.
        memory: bytes by purpose.
        joules: used in those steps, if they are counted.
        saved: step of the latest checkpoint.
    """

    trainer: Trainer
    batches: Batches
    plan: Plan
    curve: list[float] = field(default_factory=list)
    timed: list[dict[str, float]] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    joules: float | None = None
    saved: int | None = None

    @property
    def end(self) -> int:
        """Step to end before."""
        return min(self.plan.steps or self.trainer.steps, self.trainer.steps)

    @property
    def beside(self) -> dict[str, Any]:
        """What stands beside the timed steps, see ``disturbance.describe``.

        Nothing where a step waits for what is no disturbance: a GPU, other processes, or threads
        of its own that read images.
        """
        trainer = self.trainer
        if trainer.device != "cpu" or trainer.job.world > 1 or self.batches.workers:
            return {}
        return describe([step["step"] for step in self.timed], self.stretches)


def begin(config: Config, plan: Plan, device: str, job: Job = ALONE) -> Session:
    """Make everything, and go on from the checkpoint if there is one.

    Raises:
        ValueError: settings, images or a checkpoint that do not go together.
    """
    images = open_images(config.data, config.image_size, config.seed)
    if plan.evaluate:
        check_labels(images)
    if plan.checkpoint is not None:
        _check_folder(plan.checkpoint.parent)
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
        _resume(session, checkpoint.load(plan.checkpoint, config, job.world, device))
    return session


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--checkpoint {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"--checkpoint {folder} cannot be written to")


def _resume(session: Session, state: dict[str, Any]) -> None:
    trainer, steps = session.trainer, session.plan.steps
    if steps and state["step"] > steps:
        raise ValueError(
            f"the checkpoint {session.plan.checkpoint} is at step {state['step']} already: give "
            "more --steps, or another --checkpoint"
        )
    trainer.load(state)
    session.saved = trainer.step
    session.curve = list(state["curve"])
    session.batches.skipped = list(state.get("images_skipped", ()))


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
        session.curve.append(loss)
        _check(session, loss)
        yield loss
        if plan.every and trainer.step % plan.every == 0 and trainer.step < session.end:
            save(session)
    after = nvml.energy_mj(trainer.device)
    if before is not None and after is not None:
        session.joules = (after - before) / 1e3
    save(session)


def _timed(session: Session, batches: Iterator[Tensor], keep: bool) -> float:
    watch = Watch()
    loss = session.trainer.train_step(batches)
    phases = session.trainer.phases()
    if keep:
        session.stretches.append(watch.stop())
        session.timed.append({**phases, "step": session.stretches[-1].wall_s * 1e3})
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
    trainer, path = session.trainer, session.plan.checkpoint
    lost = trainer.step - 1
    if path is not None and session.saved == lost and trainer.job.rank == 0:
        checkpoint.give_up(path)  # it holds the weights that this loss is of
    kept = (
        f"the last good checkpoint is {path}"
        if path is not None and path.exists()
        else "no good checkpoint was kept"
    )
    raise DivergedError(
        f"the loss of {trainer.config.label} is {loss} at step {lost}; {kept}; lower the learning "
        "rate, or --on-nan skip"
    )


def save(session: Session) -> None:
    """Keep a checkpoint, if the plan says so and the weights are any good."""
    trainer, path = session.trainer, session.plan.checkpoint
    if path is None or trainer.job.rank or session.saved == trainer.step:
        return
    if all(bool(weights.isfinite().all()) for weights in trainer.network.parameters()):
        kept = {"curve": session.curve, "images_skipped": session.batches.skipped}
        checkpoint.save(path, trainer.config, trainer.job.world, {**trainer.state(), **kept})
        session.saved = trainer.step
