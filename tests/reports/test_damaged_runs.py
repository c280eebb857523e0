"""Run files that cannot mislead: a damaged one is refused by line, or read right."""

import contextlib
import copy
import json
import random
import re
import warnings
from pathlib import Path

import pytest
from made_up import case, measured

from lossbench.bench.records.runfile import RunFileWarning
from lossbench.reports.compare import NoCommonCaseError, open_sides, pair
from lossbench.reports.page import make_table
from lossbench.reports.records import open_run
from lossbench.reports.section import render
from lossbench.reports.side_by_side import build

MUTATIONS = 1000
STRANGE = (
    *(
        "1e999",
        "-1e999",
        "1" + "0" * 400,
        "NaN",
        "Infinity",
        "-Infinity",
        "-1",
        "0",
        "null",
        "true",
    ),
    *(
        '""',
        '"x"',
        '"\\ud800"',
        '"[/b]"',
        "[]",
        "{}",
        "[[1]]",
        '{"a": {"b": [1]}}',
        "[1, -1]",
        "1e300",
    ),
    *(
        "[1, 2]",
        "[NaN, 1]",
        '"\\u0000"',
        "0.5",
        "-0.0",
        "1e-300",
        "3",
        "[1e999]",
        "[1, true]",
        "012",
    ),
)


LINES = [
    {
        **{"schema": 1, "environment": {"cpu": "Test CPU", "threads": 2, "torch": "2.13.0"}},
        **{"environment_hash": "e", "code_hash": "c", "created": "2026-11-20T12:00:00Z"},
        **{"git_commit": "0123456789abcdef", "git_dirty": False},
    },
    case("a", "reference") | measured(10.0),
    case("b", "gram") | measured(5.0),
    case("c", "compiled") | measured(7.0) | {"first_call_ms": 900.0},
    case("d", "chunked"),
]
CONTENT = b"".join(json.dumps(line).encode() + b"\n" for line in LINES)


def cut(rng: random.Random, lines: list[bytes]) -> bytes:
    content = b"\n".join(lines)
    return content[: rng.randrange(len(content))]


def reorder(rng: random.Random, lines: list[bytes]) -> bytes:
    one, two = rng.sample(range(len(LINES)), 2)
    lines[one], lines[two] = lines[two], lines[one]
    return b"\n".join(lines)


def repeat(rng: random.Random, lines: list[bytes]) -> bytes:
    lines.insert(rng.randrange(len(LINES) + 1), rng.choice(lines[:-1]))
    return b"\n".join(lines)


def drop(rng: random.Random, lines: list[bytes]) -> bytes:
    del lines[rng.randrange(len(LINES))]
    return b"\n".join(lines)


def damage(rng: random.Random, lines: list[bytes]) -> bytes:
    content = bytearray(b"\n".join(lines))
    for _ in range(rng.choice((1, 1, 1, 5))):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def insert(rng: random.Random, lines: list[bytes]) -> bytes:
    strange = (b"", b"\xff\xfe", b"[" * 10_000, b"null", b"[]", b"{}", b"\x00", b'{"a": 1}', b"1")
    lines.insert(rng.randrange(len(LINES)), rng.choice(strange))
    return b"\n".join(lines)


def lose(rng: random.Random, lines: list[bytes]) -> bytes:
    return edit(rng, lines, lambda content, name: content.pop(name))


def replace(rng: random.Random, lines: list[bytes]) -> bytes:
    mark, strange = "a strange value", rng.choice(STRANGE)
    edited = edit(rng, lines, lambda content, name: content.update({name: mark}))
    return edited.replace(json.dumps(mark).encode(), strange.encode())


def edit(rng: random.Random, lines: list[bytes], change) -> bytes:
    number = rng.randrange(len(LINES))
    content = copy.deepcopy(LINES[number])
    inner = content["environment"] if number == 0 and rng.random() < 0.3 else content
    change(inner, rng.choice(list(inner)))
    lines[number] = json.dumps(content).encode()
    return b"\n".join(lines)


def retell(rng: random.Random, lines: list[bytes]) -> bytes:
    schema = rng.choice((0, 2, 99, -1, "1", 1.0, True, None, 10**30))
    lines[0] = json.dumps(LINES[0] | {"schema": schema}).encode()
    return b"\n".join(lines)


KINDS = (cut, reorder, repeat, drop, damage, insert, lose, retell, *[replace] * 6)


def mutations(seed: int, count: int) -> list[tuple[str, bytes]]:
    """What was done, and the content that came of it."""
    rng = random.Random(seed)
    kinds = [rng.choice(KINDS) for _ in range(count)]
    return [(kind.__name__, kind(rng, CONTENT.split(b"\n"))) for kind in kinds]


def keys(content: bytes) -> set[str]:
    """Keys of the whole lines, if all of them are JSON objects with the header first."""
    header, *records = [json.loads(line) for line in content.split(b"\n")[:-1]]
    assert header["schema"] == 1
    return {record["key"] for record in records}


def read_all(original: Path, path: Path) -> set[str]:
    """Keys of the records of a file that a table and a comparison have shown."""
    make_table("implementations", [path], "terminal")
    with contextlib.suppress(NoCommonCaseError):
        sides = open_sides([original, path])
        render(build(sides, [pair(*sides)]), "terminal")
    return {record["key"] for record in open_run(path).records}


def check(original: Path, path: Path, content: bytes) -> bool:
    """Whether a damaged file was refused, by one line that names its own; if not, it was right."""
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found, said = read_all(original, path), ""
        except ValueError as error:
            found, said = set(), str(error)
    assert {warning.category for warning in caught} <= {RunFileWarning}
    if re.match(rf"{re.escape(str(path))}(:\d+: | has no header)", said):
        assert "\n" not in said
        return True
    assert not said or "no records yet" in said
    assert found == keys(content)
    assert bool(caught) != content.endswith(b"\n")  # a half-written line is dropped aloud
    return False


@pytest.mark.long
def test_a_damaged_run_is_refused_by_line_or_read_right(tmp_path):
    original = tmp_path / "original.jsonl"
    original.write_bytes(CONTENT)
    refused = 0
    for kind, content in mutations(seed=0, count=MUTATIONS):
        try:
            refused += check(original, tmp_path / "run.jsonl", content)
        except Exception as error:
            raise AssertionError(f"{kind}: {content.decode(errors='replace')}") from error
    assert MUTATIONS / 4 < refused < MUTATIONS
