"""Where a training step spends its time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

PHASES = (
    "data", "augmentation", "encoder_forward", "projector_forward", "communication", "loss_forward",
    "loss_backward", "backward", "gradient_reduction", "optimizer",
)  # fmt: skip
"""In the order in which they happen; ``communication`` is what the loss waits for in both its
passes, ``gradient_reduction`` what is left of adding up the gradients when they are computed."""


class PhaseClock:
    """Times the phases of a step.

    On CUDA events are recorded as the work is enqueued and read when the step is over, so that
    nothing waits for a clock.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._open: list[str] = []
        self._marks: list[tuple[str, str, Any, Any]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count what is done inside to a phase, and not to the one around it."""
        around = self._open[-1] if self._open else ""
        self._open.append(name)
        start = self._now()
        try:
            yield
        finally:
            self._open.pop()
            self._marks.append((name, around, start, self._now()))

    def take(self) -> dict[str, float]:
        """Milliseconds of each phase since the last time, and start anew."""
        if self._cuda:
            torch.cuda.synchronize()
        found = dict.fromkeys(PHASES, 0.0)
        for name, around, start, end in self._marks:
            took = start.elapsed_time(end) if self._cuda else (end - start) * 1e3
            found[name] += took
            if around:
                found[around] -= took
        self._marks.clear()
        return found

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
