"""Checkpoints: written whole or not at all, resumed only by the configuration that made them."""

import os
from pathlib import Path
from typing import Any

import torch

from bench.pretraining.config import Config, differences

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, written or resumed; the message says which and why."""


def save(path: Path, config: Config, world: int, state: dict[str, Any]) -> None:
    """Write a checkpoint beside its place, then rename it: the old one survives a full disk.

    Raises:
        CheckpointError: it could not be written.
    """
    content = {"format": FORMAT, "config": config.describe(), "world": world, "state": state}
    beside = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer wraps what the system says
        beside.unlink(missing_ok=True)
        kept = f"the one before is kept in {path}" if path.exists() else "there was none before"
        raise CheckpointError(f"checkpoint {path} cannot be written: {error}; {kept}") from error


def load(path: Path, config: Config, world: int, device: str) -> dict[str, Any]:
    """The state that a checkpoint holds.

    Raises:
        CheckpointError: it cannot be read, or another configuration or number of processes made it.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        found, there, state = content["config"], content["world"], content["state"]
    except Exception as error:  # whatever unpickling a damaged file raises
        raise CheckpointError(
            f"checkpoint {path} cannot be read ({type(error).__name__}); "
            "remove it or choose another --checkpoint"
        ) from error
    changed = differences(config.describe(), found)
    if there != world:
        changed.append(f"world ({there} there, {world} here)")
    if changed:
        raise CheckpointError(
            f"checkpoint {path} is of another configuration: {', '.join(changed)}; "
            "give the same settings or choose another --checkpoint"
        )
    resumed: dict[str, Any] = state
    return resumed
