"""``auto``: the implementation with the least work that fits in memory, by the cost models."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from lossbench.losses.costs import Cost, Problem

ABOUT_EQUAL = 1.05
"""Work within 5% of the least counts as equal ..."""
PREFERENCE = ("gram", "reference", "chunked")
"""... and of equals the one that makes the least calls and passes is taken ..."""
ROOMY = 4
"""... unless it holds this many times the least memory: such matrices do not stay in a cache."""
FEW_MACS = 6 * 10**7
"""Below this, calls outlast arithmetic on a CPU: compiled code, which makes few, wins ..."""
COMPILED_WORK = 1.5
"""... unless it has this many times the work of the best implementation."""
MANY_MACS = 6 * 10**8
"""Up to this, it wins a forward pass with about the least work, by making fewer passes over it."""
WORTH_COMPILING = 2**15
"""Views with fewer elements are no training: the seconds of a compilation are lost on them."""


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


def choose(costs: Mapping[str, Cost], problem: Problem, pass_: str, memory_bytes: int) -> Choice:
    """Choose among implementations by what their cost models say.

    Args:
        costs: name -> counts; ``compiled`` is among them where it can be compiled.
        problem: the batch.
        pass_: one of ``PASSES``.
        memory_bytes: what an evaluation may hold beyond its inputs.

    Raises:
        ValueError: an unknown pass, or ``memory_bytes`` that is no number of bytes.
    """
    if not isinstance(memory_bytes, int) or memory_bytes < 0:
        raise ValueError(f"memory_bytes must be a whole number, got {memory_bytes!r}")
    macs = {name: cost.macs(pass_) for name, cost in costs.items()}
    peaks = {name: cost.peak_elements * problem.element_bytes for name, cost in costs.items()}
    fitting = [name for name in costs if peaks[name] <= memory_bytes]
    if fitting:
        least = min(macs[name] for name in fitting)
        equal = [n for n in fitting if n != "compiled" and macs[n] <= ABOUT_EQUAL * least]
        roomy = ROOMY * min(peaks[name] for name in equal)
        chosen = min(equal, key=lambda name: (peaks[name] > roomy, _rank(name)))
        reason = f"least work of what fits in {_gigabytes(memory_bytes)}"
        if "compiled" in fitting and _calls_tell(problem, pass_, least, macs["compiled"]):
            chosen, reason = "compiled", "so little work that calls tell, and it makes the fewest"
    else:
        chosen = min((n for n in peaks if n != "compiled"), key=peaks.__getitem__)
        reason = f"nothing fits in {_gigabytes(memory_bytes)}; this needs least"
    lines = [
        f"  {name}: {macs[name] / 1e9:.3f} GMACs a {pass_}, about {_gigabytes(peaks[name])}"
        for name in costs
    ]
    return Choice(chosen, reason, tuple(lines))


def can_compile() -> bool:
    """Whether ``torch.compile`` finds the C++ compiler that it needs on a CPU."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def _calls_tell(problem: Problem, pass_: str, least: int, compiled: int) -> bool:
    few = least <= FEW_MACS and compiled <= COMPILED_WORK * least
    equal = pass_ == "forward" and least <= MANY_MACS and compiled <= ABOUT_EQUAL * least
    worth = problem.device == "cpu" and problem.batch * problem.dim >= WORTH_COMPILING
    return worth and (few or equal)


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
    import resource  # Unix has it; losses can be imported elsewhere

    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return float("inf") if limit == resource.RLIM_INFINITY else limit


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
