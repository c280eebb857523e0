"""Run files: nothing finished is lost, nothing broken goes unnoticed."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from lossbench.bench.records.runfile import (
    SCHEMA,
    RunFileError,
    RunFileWarning,
    StaleRunError,
    Writer,
    read,
    set_aside,
)

HEADER = {
    "schema": SCHEMA,
    "environment": {"torch": "2.13.0", "threads": 2},
    "environment_hash": "e",
    "code_hash": "c",
}


def record(key: str) -> dict:
    return {
        "key": key,
        "status": "ok",
        "loss": "smi",
        "implementation": "reference",
        "pass": "step",
        **dict.fromkeys(("median_ms", "p20_ms", "p80_ms", "peak_bytes", "saved_bytes", "macs"), 1),
    }


def paired(key: str, **fields) -> dict:
    pair = {"pair_group": "g", "pair_processes": 2, "samples_ms": [1, 2]}
    return record(key) | pair | fields


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "run.jsonl"
    with Writer(path, HEADER) as writer:
        writer.append(record("a"))
        writer.append(record("b"))
    return path


def keys(path):
    return [record["key"] for record in read(path).records]


def test_what_is_written_is_read(path):
    assert keys(path) == ["a", "b"]
    assert read(path).header == HEADER


def test_a_writer_continues_a_file(path):
    with Writer(path, HEADER) as writer:
        assert list(writer.records) == ["a", "b"]
        writer.append(record("c"))
    assert keys(path) == ["a", "b", "c"]


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_half_written_last_line_is_dropped_with_a_warning_and_overwritten(path, cut):
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    with pytest.warns(RunFileWarning, match=r"run\.jsonl: dropped a half-written last line"):
        assert keys(path) == ["a"]
    with pytest.warns(RunFileWarning), Writer(path, HEADER) as writer:
        writer.append(record("b"))
    assert path.read_bytes() == content


def test_half_written_header_starts_anew(path):
    path.write_bytes(path.read_bytes()[:10])
    with Writer(path, HEADER):
        pass
    assert keys(path) == []


def test_of_a_case_that_was_tried_again_the_last_record_counts(path):
    with Writer(path, HEADER) as writer:
        writer.append(record("a") | {"status": "oom"})
    assert [r["status"] for r in read(path).records] == ["oom", "ok"]


def test_a_device_is_not_a_run_file():
    with pytest.raises(RunFileError, match="/dev/full cannot be written: it is not a regular"):
        Writer(Path("/dev/full"), HEADER)


@pytest.mark.parametrize("content", ["a line of somebody's notes", "first\nsecond\n"])
def test_a_file_of_another_kind_is_left_alone(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(RunFileError, match=r"notes\.txt"):
        Writer(path, HEADER)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (2, b"{", r":2: not JSON"),
        (2, b"\xff\xfe", r":2: not JSON"),
        (3, b"[]", r":3: not a JSON object"),
        (3, b"", r":3: not JSON"),
        (2, b"{}", r":2: key must be a str, got 'nothing'"),
        (2, json.dumps(record("a") | {"key": 3}).encode(), r":2: key must be a str, got 3"),
        (3, json.dumps(record("a") | {"status": "good"}).encode(), r":3: unknown status 'good'"),
        (
            3,
            json.dumps(record("a") | {"peak_bytes": "x"}).encode(),
            r":3: peak_bytes must be a",
        ),
        (3, b"[" * 100_000, r":3: not JSON"),
        (1, json.dumps(record("a")).encode(), r":1: schema must be a whole number"),
        (1, json.dumps(HEADER | {"schema": 99}).encode(), r":1: schema 99 .*; update lossbench"),
        (1, json.dumps(HEADER | {"schema": 0}).encode(), r":1: schema 0 .*; measure again"),
        (
            1,
            json.dumps(HEADER | {"schema": True}).encode(),
            r":1: schema must be a whole .*, got True",
        ),
        (1, json.dumps(HEADER | {"environment": {"cpu": []}}).encode(), r":1: cpu must be a str"),
        (3, json.dumps(HEADER).encode(), r":3: a second header"),
        (2, b'{"key": "a", "key": "b"}', r":2: not JSON \(a name stands twice"),
        (2, b'{"value": NaN}', r":2: not JSON \(NaN is not a number\)"),
        (2, b'{"value": -1e999}', r":2: not JSON \(-1e999 is out of range\)"),
        (2, b'{"value": 1' + b"0" * 400 + b"}", r":2: not JSON \(1000.* is out of range\)"),
        (2, json.dumps(record("a") | {"median_ms": -1}).encode(), r":2: median_ms must be a time"),
        (2, json.dumps(record("a") | {"median_ms": None}).encode(), r":2: median_ms .*'nothing'"),
        (2, json.dumps(record("a") | {"peak_bytes": True}).encode(), r":2: peak_bytes .*got True"),
        (2, json.dumps(record("a") | {"batch": 0}).encode(), r":2: batch must be a whole number"),
        (2, json.dumps(record("a") | {"title": "\ud800"}).encode(), r":2: title must be a str"),
        (2, json.dumps(record("a") | {"samples_ms": [1, 0]}).encode(), r":2: samples_ms must be"),
        (2, json.dumps(paired("a", pair_processes=None)).encode(), r":2: pair_processes must be"),
        (2, json.dumps(paired("a", pair_processes=3)).encode(), r":2: samples_ms must be as many"),
    ],
)
def test_other_corrupt_lines_are_errors_with_file_and_line(path, line, text, message):
    lines = path.read_bytes().split(b"\n")
    lines[line - 1] = text
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(RunFileError, match=r"run\.jsonl" + message):
        read(path)
    before = path.read_bytes()
    with pytest.raises(RunFileError, match=message):
        Writer(path, HEADER)
    assert path.read_bytes() == before


def test_records_of_a_group_may_have_been_timed_in_fewer_processes(path):
    lines = [HEADER, paired("a"), paired("b", pair_processes=1)]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert keys(path) == ["a", "b"]


def test_what_a_reader_needs_is_asked_for(path):
    with pytest.raises(RunFileError, match=r"run\.jsonl:2: batch must be .*, got 'nothing'"):
        read(path, needed=("batch",))


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(RunFileError, match="cannot be read: No such file"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(RunFileError, match="has no header"):
        read(tmp_path / "empty.jsonl")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"code_hash": "d"}, "version of lossbench's code"),
        ({"environment": {"torch": "2.14.0", "threads": 2}}, r"torch \(2\.13\.0, now 2\.14\.0\)"),
    ],
)
def test_other_code_or_environment_is_refused_by_name(path, changed, message):
    before = path.read_bytes()
    with pytest.raises(StaleRunError, match=message):
        Writer(path, HEADER | changed)
    assert path.read_bytes() == before


def test_two_writers_do_not_mix(path):
    with Writer(path, HEADER) as writer:
        with pytest.raises(RunFileError, match="is being written by another run"):
            Writer(path, HEADER)
        writer.append(record("c"))
    assert keys(path) == ["a", "b", "c"]


def test_values_that_json_lacks_are_never_written(path):
    with (
        Writer(path, HEADER) as writer,
        pytest.raises(ValueError, match="Out of range float"),
    ):
        writer.append(record("c") | {"value": float("nan")})
    assert keys(path) == ["a", "b"]


def test_set_aside_never_overwrites(path):
    contents = []
    for text in ("one", "two"):
        path.write_text(text)
        contents.append(set_aside(path))
    assert [aside.name for aside in contents] == ["run.1.jsonl", "run.2.jsonl"]
    assert [aside.read_text() for aside in contents] == ["one", "two"]


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFileError, match="cannot be written"):
        Writer(tmp_path / "file" / "run.jsonl", HEADER)


FILL = f"""
import sys
from pathlib import Path
from lossbench.bench.records.runfile import RunFileError, Writer
try:
    with Writer(Path(sys.argv[1]), {HEADER!r}) as writer:
        for number in range(1000):
            writer.append({record("")!r} | {{"key": f"{{number:04}}"}})
except RunFileError as error:
    print(error)
"""


def test_full_disk_keeps_every_record_written_before(tmp_path):
    # A limit on the file's size fails like a full disk: part of the line fits, the rest does not.
    path = tmp_path / "run.jsonl"
    result = subprocess.run(
        [sys.executable, "-c", FILL, str(path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),
    )
    assert "cannot be written" in result.stdout
    assert "run again to resume" in result.stdout
    written = keys(path)  # no warning: the partial line was taken back
    assert 10 < len(written) < 1000
    assert written == [f"{number:04}" for number in range(len(written))]
