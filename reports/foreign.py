"""Times that other tools wrote, as the records of a run: a plain CSV, or pytest-benchmark's JSON.

What such a file does not say is not made up: its rows have no memory or error unless the file has
them. A case is one device's random inputs unless the file says otherwise.
"""

import csv
import hashlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lossbench.bench.records import fields, kinds
from lossbench.bench.records.runfile import SCHEMA, Run, RunFileError, RunFileWarning

CASE = ("loss", "implementation", "batch", "dim", "dtype", "pass")
"""What a file must say of a case."""
USUAL: dict[str, Any] = {
    **{"world": 1, "distribution": "local", "inputs": "random", "variant": ""},
    **{"options": "", "products": "", "contender": ""},
}
"""What it may say too, and what holds if it does not."""
_WHOLE = ("batch", "dim", "world")


def recognises(path: Path) -> bool:
    """Whether a file is one of these, by its name or its beginning."""
    try:
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return False
    names_itself = b'"machine_info"' in start or b'"benchmarks"' in start
    is_run = b'"schema"' in start.partition(b"\n")[0]
    return _is_csv(path, start) or (start.startswith(b"{") and names_itself and not is_run)


def read(path: Path) -> Run:
    """Read a file that ``recognises`` knows.

    Raises:
        RunFileError: a damaged file; the message names the line or the benchmark.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise RunFileError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RunFileError(f"{path}:{line}: not UTF-8 ({error.reason})") from error
    if not text.strip():
        raise RunFileError(f"{path} is empty")
    digest = hashlib.sha256(content).hexdigest()[:16]
    header, records = (_read_csv if _is_csv(path, content) else _read_pytest)(path, text)
    if not records:
        raise RunFileError(f"{path} is empty: it holds no time")
    _name_losses(records)
    header |= {"schema": SCHEMA, "source": path.name, "code_hash": "", "environment_hash": ""}
    # of two files neither is the other's second try: their keys differ
    keyed = [{"key": f"{digest} {number}", **record} for number, record in enumerate(records)]
    return Run(path, header, keyed)


def _name_losses(records: Sequence[dict[str, Any]]) -> None:
    """Give those that are of this project's losses their titles."""
    untitled = [record for record in records if record.get("title") is None]
    if not untitled:
        return
    from lossbench import losses  # imports torch, which run files do without: they say their titles

    for record in untitled:
        if record["loss"] in losses.names():
            record["title"] = losses.spec(record["loss"]).title


def _is_csv(path: Path, start: bytes) -> bool:
    names = start.partition(b"\n")[0].decode(errors="replace").split(",")
    return path.suffix == ".csv" or not {name.strip() for name in names}.isdisjoint((*CASE, "ms"))


def _read_csv(path: Path, text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    samples: dict[tuple[Any, ...], list[float]] = {}
    for where, row in _csv_rows(path, text):
        said: dict[str, Any] = {name: value for name, value in row.items() if name != "ms"}
        said |= {name: _number(where, name, said[name], int) for name in _WHOLE if name in said}
        time = _number(where, "ms", row["ms"], float)
        if tuple(said.items()) not in samples:
            _case(where, said)  # an error names this line
        samples.setdefault(tuple(said.items()), []).append(time)
    records = [_record(str(path), dict(said), times) for said, times in samples.items()]
    return {"environment": {}}, records


def _csv_rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Lines as dictionaries, each with its place in the file."""
    if not text.endswith(("\n", "\r")):
        cut = f"{path}: its last line has no end: what it says may be cut off"
        warnings.warn(cut, RunFileWarning, stacklevel=2)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        _check_columns(path, names)
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if row and len(row) != len(names):
                raise RunFileError(f"{where}: {len(row)} cells, but {len(names)} columns")
            if row:
                yield where, dict(zip(names, (cell.strip() for cell in row), strict=True))
    except csv.Error as error:
        raise RunFileError(f"{path}:{reader.line_num}: not CSV ({error})") from error


def _check_columns(path: Path, names: list[str]) -> None:
    needed = (*CASE, "ms")
    faults = {
        "missing": [name for name in needed if name not in names],
        "unknown": [name for name in names if name not in (*needed, *USUAL)],
        "repeated": sorted({name for name in names if names.count(name) > 1}),
    }
    said = "; ".join(f"{fault} {', '.join(which)}" for fault, which in faults.items() if which)
    if said:
        known = f"{', '.join(needed)}; it may have {', '.join(USUAL)}"
        raise RunFileError(f"{path}:1: columns: {said}. A CSV of times has {known}")


def _number(where: str, name: str, text: str, of: type) -> Any:
    kind = kinds.COUNT if of is int else kinds.TIME
    try:
        value = of(text.replace("_", "?"))  # Python's own separator
    except ValueError:
        value = None
    if not kind.holds(value):
        raise RunFileError(f"{where}: {name} must be {kind.says}, got {text!r:.60}")
    return value


def _read_pytest(path: Path, text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise RunFileError(f"{path}:{line}: not JSON ({error})") from error
    benchmarks = content.get("benchmarks")
    if not isinstance(benchmarks, list):
        raise RunFileError(f"{path}: no list of benchmarks; is it of pytest --benchmark-json?")
    records = []
    for number, benchmark in enumerate(benchmarks):
        where = f"{path}: benchmarks[{number}]"
        records.append(_of_benchmark(where, benchmark))
    created = content.get("datetime")
    header = {"environment": _facts(_object(content, "machine_info"))}
    return header | ({"created": created} if kinds.LINE.holds(created) else {}), records


def _of_benchmark(where: str, benchmark: Any) -> dict[str, Any]:
    """A record from what the test says of its case in ``extra_info`` or its parameters."""
    if not isinstance(benchmark, dict) or not kinds.NAME.holds(benchmark.get("name")):
        raise RunFileError(f"{where}: not a benchmark: it has no name")
    name, _, parameter = benchmark["name"].partition("[")
    given = _object(benchmark, "params") | _object(benchmark, "extra_info")
    said = {"loss": name, "implementation": parameter.rstrip("]") or "default"}
    said |= {field: value for field, value in given.items() if field in fields.RECORD}
    missing = [field for field in CASE if said.get(field) is None]
    if missing:
        hint = "say it in benchmark.extra_info or as a parameter"
        raise RunFileError(f"{where} ({name}): no {', '.join(missing)}; {hint}")
    stats = _object(benchmark, "stats")
    seconds = stats.get("data") or [stats.get("median")]
    if not isinstance(seconds, list) or not all(map(kinds.NUMBER.holds, seconds)):
        raise RunFileError(f"{where} ({name}): stats must have data or a median, in seconds")
    return _record(f"{where} ({name})", said, [1e3 * second for second in seconds])


def _facts(machine: Mapping[str, Any]) -> dict[str, Any]:
    """The machine, in the words of a run's header."""
    cpu = _object(machine, "cpu")
    facts = {
        "cpu": cpu.get("brand_raw"),
        "cores": cpu.get("count"),
        "system": f"{machine.get('system')} {machine.get('release')}",
        "python": machine.get("python_version"),
    }
    known = {"cpu": kinds.LINE, "cores": kinds.COUNT, "system": kinds.LINE}
    return {
        name: value for name, value in facts.items() if known.get(name, kinds.LINE).holds(value)
    }


def _object(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object's object of that name, empty where it has none."""
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def _record(where: str, said: dict[str, Any], times: list[float]) -> dict[str, Any]:
    record = _case(where, {**said, "samples_ms": times})
    low, median, high = np.percentile(times, [20, 50, 80]).tolist()
    return {**record, "median_ms": median, "p20_ms": low, "p80_ms": high}


def _case(where: str, said: dict[str, Any]) -> dict[str, Any]:
    """A record with what its file leaves out, checked."""
    record: dict[str, Any] = {"status": "ok", "reason": "", **USUAL, **said}
    found = fields.record_problem(record, fields.CASE)
    if found:
        raise RunFileError(f"{where}: {found}")
    return record
