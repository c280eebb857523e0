"""Jobs through submitit: what each runs, and waiting for them. Imports no torch."""

import os
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from submitit import JobEnvironment, helpers
from submitit.core.utils import DelayedSubmission, FailedJobError, UncompletedJobError

from lossbench.bench.records.silence import silenced
from lossbench.bench.running.launch import Launcher, Progress

POLL_S = 0.5


class Shard:
    """What a job runs: a part of the work, into a run file that is named after the job.

    Args:
        task: takes the part and the path.
        part: of the work.
        folder: where run files of jobs are.
    """

    def __init__(
        self, task: Callable[[list[Any], Path], object], part: list[Any], folder: Path
    ) -> None:
        self._task, self._part, self._folder = task, part, folder.absolute()

    def __call__(self) -> str:
        """Run it; the tasks of a job find one another as the processes of torchrun do.

        Returns:
            What went wrong, in one line; its traceback is in the log.
        """
        # each process chooses its GPU by its local rank, as under torchrun
        distributed = helpers.TorchDistributedEnvironment()
        distributed.export(set_cuda_visible_devices=False, overwrite=True)
        try:
            self._task(self._part, self._folder / f"{JobEnvironment().job_id}.jsonl")
        except Exception as error:
            traceback.print_exc()
            return f"{type(error).__name__}: {' '.join(str(error).split())}"
        return ""

    def checkpoint(self) -> DelayedSubmission:
        """What Slurm's next attempt runs when time is up: it goes on with the same run file."""
        return DelayedSubmission(self)


def run_all(
    launcher: Launcher, shards: Sequence[Shard], folder: Path, progress: Progress
) -> list[str]:
    """Run shards and wait for them.

    Returns:
        A line for each job that failed.

    Raises:
        ValueError: the jobs were refused.
    """
    executor = launcher.executor(folder)
    jobs: list[Any] = []
    failures: list[str] = []
    progress.begin(len(shards))
    try:
        for start in range(0, len(shards), launcher.at_once):
            some = _submit(executor, shards[start : start + launcher.at_once], progress)
            jobs += some
            failures += _wait(some, progress)
    except BaseException:
        for job in jobs:
            if not job.done():
                job.cancel(check=False)
        raise
    return [line for line in failures if line]


def _submit(executor: Any, shards: Sequence[Shard], progress: Progress) -> list[Any]:
    try:
        # local jobs inherit stderr, where an interrupt would make each print its traceback
        with helpers.clean_env(), silenced(), executor.batch():
            jobs = [executor.submit(shard) for shard in shards]
    except (OSError, RuntimeError) as error:
        raise ValueError(f"the jobs were refused: {error}") from error
    progress.tell(f"submitted: {', '.join(job.job_id for job in jobs)}")
    return jobs


def _wait(jobs: Sequence[Any], progress: Progress) -> list[str]:
    running, failures = list(jobs), []
    while running:
        for job in [job for job in running if job.done()]:
            running.remove(job)
            failures.append(_failure(job))
            progress.finish(job.job_id, failures[-1])
        time.sleep(POLL_S * bool(running))
    return failures


def _failure(job: Any) -> str:
    """What went wrong in a job, and where its log is; "" if nothing did."""
    for task in map(job.task, range(job.num_tasks)):
        try:
            said = task.result()
        except FailedJobError:
            said = "it could not be started"
        except UncompletedJobError:
            said = f"it ended without a result, state {job.state}"
        if said:
            return f"job {job.job_id} failed: {said}; log: {os.path.relpath(task.paths.stderr)}"
    return ""
