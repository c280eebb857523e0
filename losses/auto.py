"""``auto``: the implementation with the least work that fits in memory, by the cost models."""

import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from losses.costs import Cost

ABOUT_EQUAL = 1.05
"""Work within 5% of the least counts as equal ..."""
PREFERENCE = ("gram", "reference", "chunked")
"""... and of equals the one that makes the least calls and passes is taken."""


@dataclass(frozen=True)
class Choice:
    """What ``auto`` runs, and why.

    Attributes:
        implementation: name of the chosen implementation.
        reason: one line.
        candidates: one line for each implementation that was weighed.
    """

    implementation: str
    reason: str
    candidates: tuple[str, ...]

    def __str__(self) -> str:
        """The reason, and the candidates below it."""
        return "\n".join([f"{self.implementation}: {self.reason}", *self.candidates])


def choose(costs: Mapping[str, Cost], pass_: str, element_bytes: int, memory_bytes: int) -> Choice:
    """Choose among implementations by what their cost models say.

    Args:
        costs: name -> counts.
        pass_: one of ``PASSES``.
        element_bytes: bytes of an element of the dtype that the loss is computed in.
        memory_bytes: what an evaluation may hold beyond its inputs.
    """
    macs = {name: cost.macs(pass_) for name, cost in costs.items()}
    peaks = {name: cost.peak_elements * element_bytes for name, cost in costs.items()}
    fitting = [name for name in costs if peaks[name] <= memory_bytes]
    if fitting:
        least = min(macs[name] for name in fitting)
        equal = [name for name in fitting if macs[name] <= ABOUT_EQUAL * least]
        chosen = min(equal, key=_rank)
        reason = f"least work of what fits in {_gigabytes(memory_bytes)}"
    else:
        chosen = min(peaks, key=peaks.__getitem__)
        reason = f"nothing fits in {_gigabytes(memory_bytes)}; this needs least"
    lines = [
        f"  {name}: {macs[name] / 1e9:.3f} GMACs a {pass_}, about {_gigabytes(peaks[name])}"
        for name in costs
    ]
    return Choice(chosen, reason, tuple(lines))


def _rank(name: str) -> int:
    return PREFERENCE.index(name) if name in PREFERENCE else -1  # such as a fused kernel


def free_bytes(device: torch.device) -> int:
    """Memory of a device that an evaluation can take.

    Raises:
        ValueError: a CUDA device where there is none.
    """
    if device.type != "cuda":
        return int(min(available_bytes(), _allowed_bytes()))
    if not torch.cuda.is_available():
        raise ValueError("there is no CUDA device here: say memory_bytes")
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached


def available_bytes() -> int:
    """Memory of this machine that is free or can be freed."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _allowed_bytes() -> int | float:
    """What the system lets this process allocate."""
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return float("inf") if limit == resource.RLIM_INFINITY else limit


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
