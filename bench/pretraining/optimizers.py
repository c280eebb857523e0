"""Optimizers, and the rate that grows and then falls as a cosine."""

import math
from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lossbench.bench.pretraining.config import Config

MOMENTUM = 0.9


def make_optimizer(config: Config, *trained: nn.Module) -> Optimizer:
    """The optimizer of a configuration: biases and norms neither decay nor, by LARS, adapt.

    Args:
        config: says which.
        *trained: whose parameters it moves.

    Raises:
        ValueError: the package that has it is not installed.
    """
    groups = _groups(config, chain.from_iterable(each.parameters() for each in trained))
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=MOMENTUM)
    try:
        from pytorch_optimizer import LARS
    except ImportError as error:
        raise ValueError(
            "lars needs pytorch-optimizer: pip install 'lossbench[pretrain]'"
        ) from error
    found: Optimizer = LARS(groups, momentum=MOMENTUM)
    return found


def _groups(config: Config, parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for parameter in parameters:
        (matrices if parameter.ndim > 1 else vectors).append(parameter)
    rate = config.learning_rate
    return [
        {"params": matrices, "lr": rate, "base": rate, "weight_decay": config.weight_decay},
        {
            "params": vectors,
            "lr": config.vector_learning_rate or rate,
            "base": config.vector_learning_rate or rate,
            "weight_decay": 0.0,
        },
    ]


def set_rate(optimizer: Optimizer, config: Config, step: int, steps: int, world: int) -> None:
    """Set the rates of a step of the optimizer.

    Args:
        optimizer: of ``make_optimizer``.
        config: says how the rate moves.
        step: from 0.
        steps: of the optimizer in the whole schedule.
        world: devices; the rate may grow with the batch of all.
    """
    batch = config.batch * config.accumulation * world
    scale = batch / config.rate_scaled_by if config.rate_scaled_by else 1.0
    share = rate_share(config, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * scale * share


def rate_share(config: Config, step: int, steps: int) -> float:
    """Share of the rate at a step: linear from 0 in the warm-up, then half a cosine."""
    warmup = round(steps * config.warmup_epochs / config.epochs)
    if step < warmup:
        return step / warmup
    through = (step - warmup) / max(steps - warmup, 1)
    falling = 0.5 * (1 + math.cos(math.pi * through))
    return falling * (1 - config.final_rate) + config.final_rate
