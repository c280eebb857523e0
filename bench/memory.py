"""Peak memory of a call: what the allocator held at most, beyond what it held before."""

import gc
import itertools
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def peak_bytes(call: Callable[[], object], device: str) -> int:
    """Peak bytes that ``call`` allocates on ``device`` above what was live before it.

    Inputs are live before the call, so they are excluded; the result of the call is included.
    On the CPU the peak is read off the allocator's events: scratch memory that a math library
    takes from elsewhere is not in it.
    """
    return peak_and_result(call, device)[0]


def peak_and_result(call: Callable[[], Result], device: str) -> tuple[int, Result]:
    """``peak_bytes``, and what the call returned."""
    gc.collect()
    return _peak_cuda(call) if device == "cuda" else _peak_cpu(call)


def _peak_cuda(call: Callable[[], Result]) -> tuple[int, Result]:
    call()  # the libraries' one-off workspaces are not the loss's
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before, result


def _peak_cpu(call: Callable[[], Result]) -> tuple[int, Result]:
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(
        activities=activities, profile_memory=True, acc_events=True
    ) as profile:
        result = call()
    events = profile.profiler.kineto_results.events()
    changes = [event for event in events if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    peak = max(itertools.accumulate((event.nbytes() for event in changes), initial=0))
    return peak, result
