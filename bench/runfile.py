"""Run files: JSON lines. The first line is the environment, every other line a record.

A record is written in one piece and flushed when its case ends, so a killed sweep loses the case
in flight and nothing else. Only the last line can be half-written: it is dropped with a warning.
"""

import errno
import fcntl
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

SCHEMA = 1
STATUSES = ("ok", "oom", "unsupported", "invalid", "error", "timeout")
_HEADER_FIELDS = {"schema": int, "environment": dict, "environment_hash": str, "code_hash": str}
_MEASURED = ("median_ms", "p20_ms", "p80_ms", "peak_bytes", "macs")
_NUMBERS = (*_MEASURED, "batch", "dim", "world", "loss_batch", "evaluations", "gmacs")
_RECORD_FIELDS = {"key": str, "status": str, "loss": str, "implementation": str, "pass": str}


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


def read(path: Path) -> Run:
    """Read a run file.

    A last line without its newline was cut off by a kill: it is dropped with a warning. Of a case
    that failed and was tried again, the last record counts.

    Raises:
        RunFileError: missing file, or a line that is not a header or record.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunFileError(f"{path} cannot be read: {error.strerror}") from error
    whole, newline, rest = content.rpartition(b"\n")
    lines = whole.split(b"\n") if newline else []
    if not lines:
        raise RunFileError(f"{path} has no header: it is empty or not a run file")
    header = _parse(path, 1, lines[0], _HEADER_FIELDS)
    if header["schema"] != SCHEMA:
        raise RunFileError(f"{path}:1: schema {header['schema']} is not the {SCHEMA} known here")
    if rest:
        warnings.warn(f"{path}: dropped a half-written last line", RunFileWarning, stacklevel=2)
    records = {}
    for number, line in enumerate(lines[1:], start=2):
        record = _parse_record(path, number, line)
        records[record["key"]] = record
    return Run(path, header, list(records.values()), complete_bytes=len(whole) + len(newline))


def _parse_record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    record = _parse(path, number, line, _RECORD_FIELDS)
    if record["status"] not in STATUSES:
        raise RunFileError(f"{path}:{number}: unknown status {record['status']!r}")
    needed = _MEASURED if record["status"] == "ok" else ()
    for name in (*needed, *(name for name in _NUMBERS if name in record)):
        value = record.get(name, "nothing")
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise RunFileError(f"{path}:{number}: {name} must be a number, got {value!r}")
    return record


def _parse(path: Path, number: int, line: bytes, fields: Mapping[str, type]) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RunFileError(f"{path}:{number}: not JSON ({error}); remove this line") from error
    if not isinstance(content, dict):
        raise RunFileError(f"{path}:{number}: not a JSON object; remove this line")
    for name, kind in fields.items():
        if not isinstance(content.get(name), kind):
            got = content.get(name, "nothing")
            raise RunFileError(f"{path}:{number}: {name} must be a {kind.__name__}, got {got!r}")
    return content


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
        self._file = _open_locked(path)
        try:
            self.records = self._resume(header)
        except BaseException:
            self._file.close()
            raise

    def _resume(self, header: dict[str, Any]) -> dict[str, dict[str, Any]]:
        if _is_unfinished_header(self.path.read_bytes()):  # new, or killed in its first line
            self._file.truncate(0)
            self._append(header)
            return {}
        run = read(self.path)
        changed = _differences(run.header, header)
        if changed:
            raise StaleRunError(
                f"{self.path} was measured with another {', '.join(changed)}; "
                "choose another --out, or add --restart to set it aside and start anew"
            )
        self._file.truncate(run.complete_bytes)
        return {record["key"]: record for record in run.records}

    def append(self, record: dict[str, Any]) -> None:
        """Write one record and force it to the disk.

        Raises:
            RunFileError: the disk is full or the file cannot be written; the file keeps every
                record written before.
        """
        self._append(record)
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
        self._file.close()


def set_aside(path: Path) -> Path:
    """Rename a run file to the first free ``NAME.1.jsonl``, ``NAME.2.jsonl``, ..."""
    number = 1
    while (target := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    return path.rename(target)


def _open_locked(path: Path) -> IO[bytes]:
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


def _is_unfinished_header(content: bytes) -> bool:
    """Whether nothing would be lost by starting anew: never true of a file of another kind."""
    start = b'{"schema": '
    return b"\n" not in content and content[: len(start)] == start[: len(content)]


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two headers that matters for a number."""
    names = [
        f"{name} ({old['environment'].get(name)}, now {value})"
        for name, value in new["environment"].items()
        if old["environment"].get(name) != value
    ]
    if old["code_hash"] != new["code_hash"]:
        names.append("version of lossbench's code")
    return names
