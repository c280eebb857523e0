"""Work that jobs share: each runs a shard of it, and the run file gets what they made.

The machine that submits may be a login node, so nothing that is written down comes from it: the
header of the run file, and with it every key, is that of the nodes that measured.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossbench.bench.records import runfile
from lossbench.bench.records.environment import code_hash
from lossbench.bench.records.runfile import Run, RunFileError, StaleRunError, Writer
from lossbench.bench.running.launch import Launcher, Progress

Record = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """What jobs share.

    Attributes:
        units: lists of cases or settings, most important first; a unit stays in one job.
        key: content key of one of them under a run file's header.
        is_done: of a unit and its records, None where there is none: whether it needs no job.
        task: runs some of them, of whole units, into a run file.
    """

    units: Sequence[Sequence[Any]]
    key: Callable[[Any, dict[str, Any]], str]
    is_done: Callable[[Sequence[Any], list[Record | None]], bool]
    task: Callable[[list[Any], Path], object]

    def records(self, out: Path) -> list[list[Record | None]]:
        """What the run file holds of each unit."""
        if not out.exists():
            return [[None] * len(unit) for unit in self.units]
        run = runfile.read(out)
        known = {record["key"]: record for record in run.records}
        return [[known.get(self.key(each, run.header)) for each in unit] for unit in self.units]


@dataclass(frozen=True)
class Shared:
    """What is in the run file in the end.

    Attributes:
        records: of what was asked for, in its order; None where a job failed or ran in another
            environment.
        measured: how many of them came now.
        failed: whether a job failed or a record is missing.
    """

    records: list[Record | None]
    measured: int
    failed: bool


def share(launcher: Launcher, work: Work, out: Path, restart: bool, progress: Progress) -> Shared:
    """Run in jobs what the run file does not hold yet, and merge what they made into it.

    Interrupted, it cancels the jobs and keeps what they measured.

    Raises:
        RunFileError: the run file comes from other code, or cannot be read or written.
        ValueError: the jobs were refused.
    """
    _check_code(out, restart, progress)
    folder = out.with_name(f"{out.name}.shards")
    _check_folder(folder)
    merge(out, folder)  # what a killed session left
    before = work.records(out)
    pairs = zip(work.units, before, strict=True)
    todo = [unit for unit, found in pairs if not work.is_done(unit, found)]
    failures: list[str] = []
    try:
        if todo:
            from lossbench.bench.running.jobs import Shard, run_all

            progress.tell(f"{min(launcher.jobs, len(todo))} job(s); their logs are in {folder}")

            shards = [Shard(work.task, part, folder) for part in deal(todo, launcher.jobs)]
            failures = run_all(launcher, shards, folder, progress)
    finally:
        for line in [*failures, *merge(out, folder)]:
            progress.tell(line)
    old, new = _flat(before), _flat(work.records(out))
    measured = sum(a != b for a, b in zip(old, new, strict=True))
    return Shared(new, measured, bool(failures) or None in new)


def deal(units: Sequence[Sequence[Any]], jobs: int) -> list[list[Any]]:
    """Shards of whole units, one a job: dealt out, so that each begins with what matters most."""
    return [_flat(units[job::jobs]) for job in range(min(jobs, len(units)))]


def _flat(lists: Sequence[Sequence[Any]]) -> list[Any]:
    return [each for some in lists for each in some]


def _check_code(out: Path, restart: bool, progress: Progress) -> None:
    """Refuse a run file of other code, or set it aside. Of its environment nothing is known yet."""
    if not out.exists():
        return
    header = {**runfile.read(out).header, "code_hash": code_hash()}
    try:
        with Writer(out, header):
            return
    except StaleRunError:
        if not restart:
            raise
    progress.tell(f"{out} came from other code: kept as {runfile.set_aside(out)}")


def _check_folder(folder: Path) -> None:
    """Refuse while jobs of a session that was lost still measure: this one would do so again."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFileError(f"{folder} cannot be written: {error.strerror}") from error
    for path in folder.glob("*.jsonl"):
        try:
            with runfile.open_locked(path):
                pass
        except RunFileError as error:
            raise RunFileError(f"a job still writes {path}; wait for it, or cancel it") from error


def merge(out: Path, folder: Path) -> list[str]:
    """Add what shards hold to the run file by content key, and remove the shards that are in it.

    A run file has one header. If there is no run file yet, it gets that of the environment with
    most records, its calibration included: any of these nodes' tells what such a device reaches,
    and each record was judged by that of its own node. Doing it twice changes nothing.

    Returns:
        A line about each shard that came from another environment or code, and is kept.
    """
    with contextlib.ExitStack() as held:
        return _merge(out, *_read(folder, held))


def _read(folder: Path, held: contextlib.ExitStack) -> tuple[list[Run], set[Path]]:
    """Shards that were begun; and those that no job writes, which are locked: nothing is lost."""
    shards, ended = [], set()
    for path in sorted(folder.glob("*.jsonl")):
        with contextlib.suppress(RunFileError):  # it will be merged once more
            held.enter_context(runfile.open_locked(path))
            ended.add(path)
        if b"\n" in path.read_bytes():
            shards.append(runfile.read(path))
    return shards, ended


def _merge(out: Path, shards: Sequence[Run], ended: set[Path]) -> list[str]:
    home = runfile.read(out) if out.exists() else _largest(shards)
    if home is None:
        return []
    changes = [runfile.differences(home.header, shard.header) for shard in shards]
    ours = [shard for shard, changed in zip(shards, changes, strict=True) if not changed]
    if ours:
        rows = ((record, run.header) for run in (home, *ours) for record in run.records)
        best = runfile.merge(rows)
        with Writer(out, home.header) as writer:
            for key, (record, _) in best.items():
                if writer.records.get(key) != record:
                    writer.append(record)
    for shard in ours:
        if shard.path in ended:
            shard.path.unlink()
    return [
        f"{shard.path} is kept apart, measured with another {', '.join(changed)}; "
        "lossreport takes several run files"
        for shard, changed in zip(shards, changes, strict=True)
        if changed
    ]


def _largest(shards: Sequence[Run]) -> Run | None:
    """A run of the environment that has most records, and of the code that is here."""
    sizes: Counter[str] = Counter()
    runs: dict[str, Run] = {}
    for shard in shards:
        if shard.header["code_hash"] == code_hash():
            name = shard.header["environment_hash"]
            sizes[name] += len(shard.records)
            runs.setdefault(name, shard)
    return runs[sizes.most_common(1)[0][0]] if runs else None
