"""Where a number was measured: everything that could change it, collected once for each run."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lossbench.kernels.language import INTERPRETED

ROOT = Path(__file__).resolve().parents[2]
"""Where the packages lie side by side: the repository, or an installed ``lossbench``."""
PACKAGES = ("torch", "triton", "numpy", "fvcore")
CODE = (
    *("losses/*.py", "kernels/*.py", "kernels/tuned.json"),
    *(f"bench/{room}/*.py" for room in ("counting", "measuring")),
    *(f"bench/cases/{name}.py" for name in ("calls", "case", "contenders", "examining", "inputs")),
    *(f"bench/comparing/{name}.py" for name in ("baselines", "drift", "moderation", "paired")),
    *(f"bench/comparing/{name}.py" for name in ("ratios", "robust")),
    *(f"bench/predicting/{name}.py" for name in ("calibrate", "ceilings", "expected", "predict")),
    *("bench/predicting/recalibrate.py", "bench/records/calibrations.py"),
    *(
        f"bench/running/{name}.py"
        for name in ("groups", "neighbour", "noise", "revisits", "sittings", "worker")
    ),
)
"""Source that decides what a record says."""


def describe(device: str, threads: int) -> dict[str, Any]:
    """Facts of this machine and its software that a measured number depends on.

    Args:
        device: "cpu" or "cuda".
        threads: CPU threads that torch computes with.
    """
    return {
        "device": device,
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_bytes": round(_memory_bytes(), -9),  # nodes of one model differ by some pages
        "gpu": _gpu_name() if device == "cuda" else None,
        "gpu_memory_bytes": _gpu_memory_bytes() if device == "cuda" else None,
        "driver": _driver() if device == "cuda" else None,
        "cuda": torch.version.cuda,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        **({"interpreted": True} if INTERPRETED else {}),  # times of kernels then mean nothing
        **{name: _version(name) for name in PACKAGES},
    }


def hardware(device: str) -> tuple[str, int]:
    """Name of the CPU or GPU at hand, and bytes of its memory."""
    if device == "cuda":
        return _gpu_name(), _gpu_memory_bytes()
    return _cpu_name(), _memory_bytes()


def source_state() -> dict[str, Any]:
    """The code that measures: hash of its source, git commit, and whether that commit was edited.

    An installed copy outside a git checkout has no commit.
    """
    commit = _git("rev-parse", "HEAD")
    return {
        "code_hash": code_hash(),
        "git_commit": commit,
        "git_dirty": bool(_git("status", "--porcelain")) if commit else None,
    }


def code_hash(patterns: Sequence[str] = CODE) -> str:
    """Short hash of every source file that decides what a record says."""
    digest = hashlib.sha256()
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.relative_to(ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def content_hash(content: Any) -> str:
    """Short hash of anything JSON can hold."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _git(*arguments: str) -> str | None:
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_kind() -> str:
    """Family, model and stepping: names such as that of a virtual machine's CPU may hide them."""
    known = (_cpuinfo().get(name) for name in ("cpu family", "model", "stepping"))
    return "-".join(filter(None, known))


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first core; nothing elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    pairs = (line.partition(":")[::2] for line in reversed(lines))
    return {name.strip(): value.strip() for name, value in pairs}


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gpu_name() -> str:
    return torch.cuda.get_device_name(0)


def _gpu_memory_bytes() -> int:
    return torch.cuda.get_device_properties(0).total_memory


def _driver() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # NVML is optional: no package, no library or no permission
        return None
