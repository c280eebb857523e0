"""Where a command runs: here, or in jobs that submitit starts. Imports neither it nor torch."""

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

JOBS = 4
COUNTS = (
    *("time", "nodes", "tasks_per_node", "gpus_per_node", "gpus_per_task", "cpus_per_task"),
    "array_parallelism",
)
"""submitit's parameters that are whole numbers; time is in minutes."""
KNOWN = {
    "local": ("time", "tasks_per_node", "gpus_per_node"),
    "slurm": (
        *COUNTS,
        *("account", "constraint", "exclude", "exclusive", "gres", "mem", "mem_per_cpu"),
        *("mem_per_gpu", "nodelist", "partition", "qos"),
    ),
}
"""Launchers, and the parameters that each takes; for others sbatch reads SBATCH_... variables."""
GENERIC = ("nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task")
"""What submitit knows of every launcher under one name."""
HOUR = 60
"""Minutes of a job whose time is not said; submitit's own 5 are less than a case may take."""


@dataclass(frozen=True)
class Launcher:
    """What starts jobs.

    Attributes:
        name: "slurm", or "local": jobs on this machine, one after another, so that none disturbs
            the times of the next.
        jobs: how many to share the work among, at most.
        parameters: of a job, under submitit's names.
    """

    name: str
    jobs: int
    parameters: dict[str, Any]

    @property
    def at_once(self) -> int:
        """Jobs to submit before waiting for one."""
        return 1 if self.name == "local" else self.jobs

    @property
    def tasks(self) -> int:
        """Processes of a job."""
        return self.parameters.get("nodes", 1) * self.parameters.get("tasks_per_node", 1)

    def there(self, device: str | None) -> str:
        """Device of Slurm's nodes, which need not be here: as asked for, or cuda with GPUs.

        Jobs on this machine have what is here: "".
        """
        if self.name == "local":
            return ""
        gpus = any("gpu" in f"{name}={value}" for name, value in self.parameters.items())
        return device or ("cuda" if gpus else "cpu")

    def executor(self, folder: Path) -> Any:
        """Submitit's executor, which keeps its files in a folder."""
        import submitit

        chosen = dict(self.parameters)
        shared = {name: chosen.pop(name) for name in GENERIC if name in chosen}
        shared |= {"name": "lossbench", "timeout_min": chosen.pop("time", HOUR)}
        if self.name == "local":
            import torch

            shared.setdefault("gpus_per_node", torch.cuda.device_count())  # else it hides them
        executor = submitit.AutoExecutor(folder, cluster=self.name)
        own = {f"{self.name}_{name}": value for name, value in chosen.items()}
        executor.update_parameters(**shared, **own)
        return executor


class Progress(Protocol):
    """What is told of jobs."""

    def tell(self, line: str) -> None:
        """Something happened."""

    def begin(self, jobs: int) -> None:
        """So many jobs are about to be submitted."""

    def finish(self, name: str, failure: str) -> None:
        """A job ended."""


def make_launcher(
    name: str, jobs: int | None, parameters: Mapping[str, str | int]
) -> Launcher | None:
    """What starts jobs; None of no name: the command runs here.

    Args:
        name: one of ``KNOWN``, or "".
        jobs: how many share the work; default: ``JOBS``.
        parameters: of a job, see ``KNOWN``.

    Raises:
        ValueError: values that do not go together, or that cannot be met here.
    """
    if not name:
        if jobs is not None or parameters:
            raise ValueError("--jobs and --slurm are of jobs: add --launcher slurm or local")
        return None
    from lossbench.losses import pick

    pick("launcher", name, KNOWN)
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs must be 1 or more, got {jobs}")
    chosen = Launcher(name, jobs or JOBS, _checked(parameters, KNOWN[name]))
    _check_present(name)
    return chosen


def _checked(parameters: Mapping[str, str | int], known: Sequence[str]) -> dict[str, Any]:
    from lossbench.losses import pick

    found: dict[str, Any] = {}
    for name, value in parameters.items():
        pick("--slurm parameter", name, known)
        if name in COUNTS and not (str(value).isdecimal() and int(value)):
            raise ValueError(f"--slurm {name} must be a whole number above 0, got {value!r}")
        # sbatch's --exclusive has no value
        found[name] = int(value) if name in COUNTS else True if value == "true" else value
    return found


def _check_present(name: str) -> None:
    if importlib.util.find_spec("submitit") is None:
        raise ValueError("--launcher needs submitit: pip install 'lossbench[slurm]'")
    for tool in ("sbatch", "srun"):
        if name == "slurm" and shutil.which(tool) is None:
            raise ValueError(f"no {tool} here: submit where Slurm is, or use --launcher local")
