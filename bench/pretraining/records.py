"""Pretraining runs as records of run files."""

from dataclasses import replace
from typing import Any

from lossbench import losses
from lossbench.bench.cases.case import Case, input_bytes
from lossbench.bench.cases.contenders import foreign_code, is_foreign
from lossbench.bench.counting.counting import count
from lossbench.bench.pretraining.config import Config
from lossbench.bench.pretraining.throughput import gradient_bytes, network_macs
from lossbench.bench.records import environment

PASS = "pretrain"
CODE = ("bench/pretraining/*.py", "bench/pretraining/presets.json")
"""Source that decides what is trained, beside that of the losses."""
HASHES = ("code_hash", "environment_hash")
DTYPES = {"bf16": "bfloat16", "fp16": "float16"}
"""Of the embeddings that the loss is given; otherwise float32."""


def loss_case(config: Config, device: str, world: int) -> Case:
    """The loss's part of a step, on each of ``world`` devices."""
    return Case(
        config.loss,
        config.implementation,
        batch=config.batch,
        dim=config.dim,
        dtype=DTYPES.get(config.precision, "float32"),
        world=world,
        distribution=config.distribution if world > 1 else "local",
        device=device,
        hyperparameters=config.hyperparameters,
        options=config.options,
    )


def describe(config: Config, device: str, world: int, runs: bool = True) -> dict[str, Any]:
    """What a run is: fields of its record.

    Args:
        config: what is trained.
        device: "cpu" or "cuda".
        world: processes of the job.
        runs: its loss can be followed in this process.

    Returns:
        Those of the loss's case, the settings under their names, ``macs`` of a step of all devices,
        and what each of them communicates in a step: for the loss, and to add up the gradients.
    """
    case = loss_case(config, device, world)
    settings = {f"pretrain_{name}": value for name, value in config.describe().items()}
    images = config.batch * config.accumulation * world
    loss = _step_macs(case, runs)
    macs = (
        None if loss is None else network_macs(config) * images + loss * config.accumulation * world
    )
    return {
        **case.describe(),
        "title": losses.spec(config.loss).title,
        "pass": PASS,
        "distribution": config.distribution,
        "chosen": case.choice.implementation,
        "macs": macs,
        "gmacs": macs and macs / 1e9,
        "input_bytes": input_bytes(case) if runs or not is_foreign(case) else None,
        "communicated_bytes": case.communicated_bytes * config.accumulation,
        "gradient_communicated_bytes": gradient_bytes(config, world),
        **settings,
    }


def _step_macs(case: Case, runs: bool) -> float | None:
    """Multiply-adds of a step of the loss; None where some of it is not counted."""
    if case.has_cost_model:
        return case.cost.macs("step")
    if not runs:
        return None
    found: float | None = count(replace(case, pass_="step", world=1, distribution="local"))["macs"]
    return found


def key(config: Config, world: int, steps: int, header: dict[str, Any]) -> str:
    """Content key: equal only if the same code trained the same here."""
    code = environment.code_hash(CODE)
    own = foreign_code(loss_case(config, "cpu", world))
    facts = [config.describe(), own, world, steps, code, *(header[name] for name in HASHES)]
    return environment.content_hash(facts)
