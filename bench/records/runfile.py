"""Run files: JSON lines. The first line is the environment, every other line a record.

A record is written in one piece and flushed as soon as it is known, so a killed sweep loses the
case in flight and nothing else. Only the last line can be half-written: it is dropped with a
warning. When more becomes known of a case, its record is written once more: the last one counts,
and is the only one that is left when the file is closed.
"""

import contextlib
import errno
import fcntl
import json
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from lossbench.bench.records import fields, kinds

SCHEMA = 1
_HEADER_NEEDED = ("schema", "environment", "environment_hash", "code_hash")
_RECORD_NEEDED = ("key", "status", "loss", "implementation", "pass")
Row = tuple[dict[str, Any], dict[str, Any]]
"""A record, and the header of the run that holds it."""


class RunFileError(ValueError):
    """A run file that cannot be read or written; the message names the file, line and remedy."""


class RunFileWarning(UserWarning):
    """Something in a run file was left out."""


class StaleRunError(RunFileError):
    """A run file that other code or another environment made, and that cannot be continued."""


@dataclass
class Run:
    """A run file's content.

    Attributes:
        path: where it was read from.
        header: the environment that produced the records.
        records: one dict for each case.
        complete_bytes: length of the file up to the last whole line.
    """

    path: Path
    header: dict[str, Any]
    records: list[dict[str, Any]] = field(default_factory=list)
    complete_bytes: int = 0


def read(path: Path, needed: Sequence[str] = ()) -> Run:
    """Read a run file.

    A last line without its newline was cut off by a kill: it is dropped with a warning. Of a case
    that failed and was tried again, the last record counts.

    Args:
        path: the run file.
        needed: fields that no record may lack, beside its key, status and name.

    Raises:
        RunFileError: missing file, or a line that is not a header or record, or is one whose fields
            are not of their kinds (``bench.records.fields``).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunFileError(f"{path} cannot be read: {error.strerror}") from error
    whole, newline, rest = content.rpartition(b"\n")
    lines = whole.split(b"\n") if newline else []
    if not lines:
        raise RunFileError(f"{path} has no header: it is empty or not a run file")
    header = _parse(f"{path}:1", lines[0], _header_problem)
    if rest:
        warnings.warn(f"{path}: dropped a half-written last line", RunFileWarning, stacklevel=2)
    records = {}
    for number, line in enumerate(lines[1:], start=2):
        record = _parse(f"{path}:{number}", line, partial(_record_problem, needed=needed))
        records[record["key"]] = record
    return Run(path, header, list(records.values()), complete_bytes=len(whole) + len(newline))


def _parse(
    where: str, line: bytes, problem: Callable[[dict[str, Any]], str | None]
) -> dict[str, Any]:
    try:
        content = fields.parse(line)
    except ValueError as error:
        raise RunFileError(
            f"{where}: {error}; remove this line, unless it is the header"
        ) from error
    found = problem(content)
    if found:
        raise RunFileError(f"{where}: {found}")
    return content


def _header_problem(header: dict[str, Any]) -> str | None:
    schema = header.get("schema")
    if type(schema) is int and schema != SCHEMA:
        remedy = "measure again" if schema < SCHEMA else "update lossbench"
        return f"schema {schema} is not the {SCHEMA} known here; {remedy}"
    found = fields.problem(header, fields.HEADER, _HEADER_NEEDED)
    return found or fields.problem(header["environment"], fields.FACT)


def _record_problem(record: dict[str, Any], needed: Sequence[str]) -> str | None:
    status = record.get("status")
    if "schema" in record and "key" not in record:
        return "a second header; put each run in a file of its own"
    if status is not None and status not in kinds.STATUSES:
        return f"unknown status {status!r:.60}; known: {', '.join(kinds.STATUSES)}"
    timed = status == "ok" and record.get("pass") not in (kinds.PRETRAIN, kinds.NOISE)
    measured = fields.MEASURED if timed else ()
    counted = fields.COUNTED if timed and not record.get("uncounted") else ()
    return fields.record_problem(record, (*_RECORD_NEEDED, *needed, *measured, *counted))


def merge(rows: Iterable[Row]) -> dict[str, Row]:
    """Each key's best row, in whatever order and groups rows are merged.

    The best is one that is ok; of several the one whose run is newer; of these the last by content.
    """
    best: dict[str, Row] = {}
    for row in rows:
        key = row[0]["key"]
        best[key] = max(best[key], row, key=_rank) if key in best else row
    return best


def _rank(row: Row) -> tuple[bool, str, str]:
    record, header = row
    content = json.dumps([record, header], sort_keys=True)
    return record["status"] == "ok", header.get("created") or "", content


class Writer:
    """Appends records to a run file, alone: a second writer is turned away. Use it in ``with``.

    Args:
        path: the run file; it is created with ``header``, or continued if it is there.
        header: environment and code of this session.

    Raises:
        RunFileError: the file cannot be written, is in use, or comes from other code or another
            environment.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.header = header
        self._file = open_locked(path)
        try:
            self.records = self._resume(header)
        except BaseException:
            self._file.close()
            raise
        self._has_old = False

    def _resume(self, header: dict[str, Any]) -> dict[str, dict[str, Any]]:
        if is_unfinished(self.path.read_bytes()):  # new, or killed in its first line
            self._file.truncate(0)
            self._append(header)
            return {}
        run = read(self.path)
        changed = differences(run.header, header)
        if changed:
            raise StaleRunError(
                f"{self.path} was measured with another {', '.join(changed)}; "
                "choose another --out, or add --restart to set it aside and start anew"
            )
        if "calibration" in run.header:  # what the records there were judged by
            self.header = {**header, "calibration": run.header["calibration"]}
        self._file.truncate(run.complete_bytes)
        return {record["key"]: record for record in run.records}

    def append(self, record: dict[str, Any]) -> None:
        """Write one record and force it to the disk.

        Raises:
            RunFileError: the disk is full or the file cannot be written; the file keeps every
                record written before.
        """
        self._append(record)
        self._has_old |= record["key"] in self.records
        self.records[record["key"]] = record

    def _append(self, content: dict[str, Any]) -> None:
        line = json.dumps(content, allow_nan=False).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)
            raise RunFileError(
                f"{self.path} cannot be written: {error.strerror}; it keeps its "
                f"{len(getattr(self, 'records', {}))} record(s): make room and run again to resume"
            ) from error

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._has_old:
            with contextlib.suppress(OSError):  # nothing is lost where there is no room
                self._drop_old()
        self._file.close()

    def _drop_old(self) -> None:
        """Leave the last record of each case alone, in the order of their first."""
        path = self.path.resolve()
        header, *lines = path.read_bytes().splitlines(keepends=True)
        last = {fields.parse(line)["key"]: line for line in lines}
        copy = path.with_name(f"{path.name}.tmp")
        copy.write_bytes(header + b"".join(last.values()))
        copy.replace(path)


def set_aside(path: Path) -> Path:
    """Rename a run file to the first free ``NAME.1.jsonl``, ``NAME.2.jsonl``, ..."""
    number = 1
    while (target := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return path.rename(target)


def open_locked(path: Path) -> IO[bytes]:
    """A file to append to, which nobody else can open so until it is closed.

    Raises:
        RunFileError: it cannot be written, or somebody else writes it.
    """
    if path.exists() and not path.is_file():
        raise RunFileError(f"{path} cannot be written: it is not a regular file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what could not be written must not be tried again on close.
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise RunFileError(f"{path} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise RunFileError(
            f"{path} is being written by another run; choose another --out"
        ) from error
    return file


def is_unfinished(content: bytes) -> bool:
    """Whether nothing would be lost by starting anew: never true of a file of another kind."""
    start = b'{"schema": '
    return b"\n" not in content and content[: len(start)] == start[: len(content)]


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two headers that matters for a number."""
    before, now = old["environment"], new["environment"]
    names = [
        f"{name} ({before.get(name)}, now {now.get(name)})"
        for name in {**now, **before}
        if before.get(name) != now.get(name)
    ]
    if old["code_hash"] != new["code_hash"]:
        names.append("version of lossbench's code")
    return names
