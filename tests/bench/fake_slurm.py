"""A cluster of this one machine: sbatch, srun, sacct and scancel, as far as submitit uses them.

Two or more jobs are submitted as an array, whose tasks then run at the same time.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

STATE = Path(os.environ.get("FAKE_SLURM", "/nowhere"))
"""What the cluster knows: of each job, the process group and its exit status."""


def install(folder: Path) -> dict[str, str]:
    """Put the commands into a folder; variables with which they are found and work."""
    state = folder / "state"
    state.mkdir(parents=True)
    for name in ("sbatch", "srun", "sacct", "scancel"):
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        command.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "FAKE_SLURM": str(state)}


def sbatch(script: str) -> None:
    flags = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", Path(script).read_text(), re.MULTILINE))
    if flags.get("partition") == "nowhere":
        sys.exit("sbatch: error: invalid partition specified: nowhere")
    number = 1 + len(list(STATE.glob("*.sh")))
    kept = STATE / f"{number}.sh"
    kept.write_text(Path(script).read_text())
    tasks = int(flags.get("nodes", 1)) * int(flags.get("ntasks-per-node", 1))
    last = re.match(r"0-(\d+)", flags.get("array", ""))
    for index in range(int(last[1]) + 1) if last else [None]:
        own = {"SLURM_JOB_ID": str(number), "SLURM_NTASKS": str(tasks), "SLURM_JOB_NUM_NODES": "1"}
        if index is not None:
            own |= {"SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(index)}
        name = f"{number}" if index is None else f"{number}_{index}"
        shell = f"bash {kept}; echo $? > {STATE / name}.status"
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        job = subprocess.Popen(
            ["sh", "-c", shell], env={**os.environ, **own}, start_new_session=True, **quiet
        )
        (STATE / f"{name}.group").write_text(str(job.pid))
    print(f"Submitted batch job {number}")


def srun(*arguments: str) -> None:
    options = dict(zip(arguments[1:5:2], arguments[2:5:2], strict=True))  # after --unbuffered
    array = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    known = {"%A": os.environ["SLURM_JOB_ID"], "%j": os.environ["SLURM_JOB_ID"], "%a": array}
    ranks = []
    for rank in map(str, range(int(os.environ["SLURM_NTASKS"]))):
        paths = [options["--output"], options["--error"]]
        for mark, value in {**known, "%t": rank}.items():
            paths = [path.replace(mark, value) for path in paths]
        env = {**os.environ, "SLURM_PROCID": rank, "SLURM_LOCALID": rank}
        with Path(paths[0]).open("a") as out, Path(paths[1]).open("a") as err:
            ranks.append(subprocess.Popen(arguments[5:], env=env, stdout=out, stderr=err))
    sys.exit(max(abs(rank.wait()) for rank in ranks))


def sacct(*_: str) -> None:
    print("JobID|State|NodeList")
    for group in STATE.glob("*.group"):
        status = group.with_suffix(".status")
        ended = status.read_text().strip() if status.exists() else None
        state = {None: "RUNNING", "0": "COMPLETED"}.get(ended, "FAILED")
        print(f"{group.stem}|{state}|here")


def scancel(name: str) -> None:
    os.killpg(int((STATE / f"{name}.group").read_text()), signal.SIGKILL)
    (STATE / f"{name}.status").write_text("CANCELLED")


if __name__ == "__main__":
    {"sbatch": sbatch, "srun": srun, "sacct": sacct, "scancel": scancel}[sys.argv[1]](*sys.argv[2:])
