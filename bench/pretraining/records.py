"""Pretraining runs as records of run files."""

from typing import Any

import losses
from bench import environment
from bench.case import Case, input_bytes
from bench.pretraining.config import Config
from bench.pretraining.throughput import network_macs

PASS = "pretrain"
CODE = ("bench/pretraining/*.py", "bench/pretraining/presets.json")
"""Source that decides what is trained, beside that of the losses."""
HASHES = ("code_hash", "environment_hash")
DTYPES = {"bf16": "bfloat16", "fp16": "float16"}
"""Of the embeddings that the loss is given; otherwise float32."""


def loss_case(config: Config, device: str) -> Case:
    """The loss's part of a step, as it is measured alone."""
    return Case(
        config.loss,
        config.implementation,
        batch=config.batch,
        dim=config.dim,
        dtype=DTYPES.get(config.precision, "float32"),
        device=device,
        hyperparameters=config.hyperparameters,
        options=config.options,
    )


def describe(config: Config, device: str, world: int) -> dict[str, Any]:
    """What a run is, before it is made: fields of its record.

    Returns:
        Those of the loss's case, the settings under their names, and ``macs`` of a step.
    """
    case = loss_case(config, device)
    settings = {f"pretrain_{name}": value for name, value in config.describe().items()}
    images = config.batch * config.accumulation * world
    macs = network_macs(config) * images + case.cost.macs("step") * config.accumulation * world
    return {
        **case.describe(),
        "title": losses.spec(config.loss).title,
        "pass": PASS,
        "world": world,
        "distribution": config.distribution,
        "loss_batch": config.batch * (1 if config.distribution == "local" else world),
        "evaluations": world if config.distribution == "local" else 1,
        "chosen": case.choice.implementation,
        "macs": macs,
        "gmacs": macs / 1e9,
        "input_bytes": input_bytes(case),
        **settings,
    }


def key(config: Config, world: int, steps: int, header: dict[str, Any]) -> str:
    """Content key: equal only if the same code trained the same here."""
    code = environment.code_hash(CODE)
    facts = [config.describe(), world, steps, code, *(header[name] for name in HASHES)]
    return environment.content_hash(facts)
