"""Peak memory of a call: what the allocator held at most, beyond what it held before."""

import gc
import itertools
import resource
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from lossbench.bench.records.silence import silenced

Result = TypeVar("Result")


def peak_bytes(call: Callable[[], object], device: str) -> int:
    """Peak bytes that ``call`` allocates on ``device`` above what was live before it.

    Inputs are live before the call, so they are excluded; the result of the call is included.
    On the CPU the peak is read off the allocator's events: scratch memory that a math library
    takes from elsewhere is not in it.
    """
    return peak_and_result(call, device)[0]


def emulate(device: str, memory_bytes: int) -> None:
    """Let this process allocate no more than a device holds, beyond what the program itself takes.

    Raises:
        ValueError: this device has less.
    """
    if device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        if memory_bytes > total:
            raise ValueError(f"this GPU has {total / 1e9:.0f} GB, not {memory_bytes / 1e9:.0f}")
        torch.cuda.set_per_process_memory_fraction(memory_bytes / total)
        return
    x = torch.randn(2048, 2048, requires_grad=True)
    # starts the threads, whose stacks and workspaces are the program's
    torch.autograd.grad((x @ x).exp().sum(), x)
    limit = _data_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _data_bytes() -> int:
    """Memory that this process may write to."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmData"):
                return int(line.split()[1]) * 1024
    return 0


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
    with (
        silenced(),  # the profiler's library tells when it starts and stops
        torch.profiler.profile(
            activities=activities, profile_memory=True, acc_events=True
        ) as profile,
    ):
        result = call()
    events = profile.profiler.kineto_results.events()
    changes = [event for event in events if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    peak = max(itertools.accumulate((event.nbytes() for event in changes), initial=0))
    return peak, result
