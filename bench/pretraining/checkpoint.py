"""Checkpoints: written whole or not at all, resumed only by the configuration that made them."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch

from lossbench.bench.pretraining.config import Config, differences

FORMAT = 2


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, written or resumed; the message says which and why.

    Attributes:
        trained: it was to be written: there is something to record.
    """

    trained = False


def save(path: Path, config: Config, world: int, state: dict[str, Any]) -> None:
    """Write a checkpoint beside its place, then rename it: the old one survives a full disk.

    The one before is kept too, as ``NAME.previous``, until the loss of the new one is known.

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
        _keep_previous(path)
        beside.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer wraps what the system says
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        kept = f"the one before is kept in {path}" if path.exists() else "there was none before"
        failure = CheckpointError(f"checkpoint {path} cannot be written: {error}; {kept}")
        failure.trained = True
        raise failure from error


def _keep_previous(path: Path) -> None:
    """A second name for the checkpoint that is about to be replaced, which is never missing."""
    if path.exists():
        _previous(path).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not every file system has hard links
            _previous(path).hardlink_to(path)


def give_up(path: Path) -> None:
    """Put the checkpoint before in the place of one that turned out to be of no use."""
    if _previous(path).exists():
        _previous(path).replace(path)
    else:
        path.unlink()


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")


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
