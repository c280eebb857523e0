"""A pretraining run as the fields of its record."""

import math
import time
from collections.abc import Sequence
from typing import Any

import torch

from lossbench.bench.predicting.ceilings import Ceilings
from lossbench.bench.pretraining import throughput
from lossbench.bench.pretraining.checkpoint import CheckpointError
from lossbench.bench.pretraining.config import Config
from lossbench.bench.pretraining.evaluate import evaluate, settle_norms
from lossbench.bench.pretraining.models import encoder
from lossbench.bench.pretraining.session import (
    WARM,
    DivergedError,
    Plan,
    Progress,
    Session,
    begin,
    pretrain,
    pretrain_in_turn,
)
from lossbench.bench.records.environment import content_hash
from lossbench.bench.records.failures import describe_failure
from lossbench.bench.running.job import ALONE, Job

PAIRS = 5
"""Steps in turn that an interval needs at least."""
NAMED = 20
"""Images that could not be read, by name: more of them are only counted."""


def record(session: Session, ceilings: Ceilings | None) -> dict[str, Any]:
    """What the run cost: fields of ``throughput``, memory by purpose, losses.

    Every process of the job calls it.
    """
    trainer = session.trainer
    config, world = trainer.config, trainer.job.world
    curve = [value if math.isfinite(value) else None for value in session.curve]
    lost = bool(curve) and curve[-1] is None
    of_all = trainer.job.all_of(session.batches.skipped)
    skipped = sorted({name for names in of_all for name in names})
    fields: dict[str, Any] = {
        "status": "invalid" if lost else "ok",
        "reason": "the loss is not finite" if lost else "",
        "steps": trainer.step,
        "steps_skipped": trainer.skipped,
        "images_skipped": len(skipped),
        "images_skipped_names": skipped[:NAMED],
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
        **session.beside,
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
        CheckpointError: one process of several cannot write a checkpoint.
    """
    try:
        session = begin(config, plan, device, job)
        pretrain(session, progress)
    except (MemoryError, RuntimeError) as error:
        return describe_failure(error)
    except DivergedError as error:
        return {**record(session, ceilings), "status": "invalid", "reason": str(error)}
    except CheckpointError as error:
        if job.world > 1 or not error.trained:
            raise
        return {**record(session, ceilings), "status": "error", "reason": str(error)}
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

    The first is trained a second time beside itself: by how much the two differ is noise.

    Returns:
        Fields of each, as ``run`` has them, and what ``reports.comparison`` needs of pairs.

    Raises:
        ValueError: as ``run``; fewer steps than can be timed; or a loss that is not finite.
    """
    try:
        sessions = [begin(config, plan, device) for config in (*configs, configs[0])]
        if sessions[0].end < WARM + PAIRS:
            raise ValueError(f"--paired needs {WARM + PAIRS} steps or more, got {sessions[0].end}")
        pretrain_in_turn(sessions, progress)
    except (MemoryError, RuntimeError) as error:
        return [describe_failure(error) for _ in configs]
    for session in sessions:
        session.joules = None  # the counter ran while others trained
    found = [record(session, ceilings) for session in sessions]
    found[0]["control_ms"] = found[-1]["samples_ms"]
    pair = {
        "pair_group": content_hash([time.time_ns(), *(config.describe() for config in configs)]),
        "pair_processes": 1,
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
