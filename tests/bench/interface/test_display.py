"""Terminal tables: ratios of what was timed in turn, errors, and settings that are not cut."""

import pytest

from lossbench.bench.cases.case import Case
from lossbench.bench.interface import display

LONG = {"dependency": "squared_correlation"}


def record(implementation, ms, loss="smi", group="g", **others):
    """A record that was timed in turn in two processes of three rounds."""
    case = Case(loss, implementation, batch=8, dim=4, hyperparameters=others.pop("settings", {}))
    times = [ms * (1 + share) for share in (0.0, 0.001, -0.001)]
    return {
        **case.describe(), "key": f"{loss} {implementation} {case.variant}", "status": "ok",
        "reason": "", "median_ms": ms, "p20_ms": ms, "p80_ms": ms, "samples_ms": times * 2,
        "peak_bytes": 10**6, "gmacs": 0.001, "pair_group": group, "pair_processes": 2,
        **others,
    }  # fmt: skip


def shown(records, capsys):
    display.measurements(records, "run.jsonl")
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_a_ratio_is_to_the_reference_of_the_same_loss(capsys):
    rows = [
        record("reference", 10.0), record("gram", 5.0), record("chunked", 20.0),
        record("reference", 100.0, "vicreg"), record("gram", 101.0, "vicreg"),
    ]  # fmt: skip
    lines = [line.split() for line in shown(rows, capsys).splitlines()]
    (gram,) = (line for line in lines if line[:2] == ["smi", "gram"])
    low, high = map(float, gram.pop(4).split("-"))
    assert gram == ["smi", "gram", "5.000", "0.5x", "FASTER", "1.0", "ok"]
    assert 0.47 < low < 0.5 < high < 0.53
    verdicts = {tuple(line[:2]): line[-3] for line in lines if len(line) > 6 and "x" in line[-5]}
    assert verdicts["smi", "chunked"] == "SLOWER"
    assert verdicts["vicreg", "gram"] == "SAME"


def test_of_references_alone_to_the_first():
    rows = [record("reference", 10.0), record("reference", 20.0, "vicreg")]
    assert display.baselines(rows) == {rows[1]["key"]: rows[0]}


def test_only_to_what_was_timed_in_the_same_group():
    rows = [record("reference", 10.0, group="a"), record("gram", 5.0, group="b")]
    assert display.baselines(rows) == {}


def test_a_record_that_failed_is_no_baseline():
    rows = [
        record("reference", 10.0, status="invalid"),
        record("gram", 5.0),
        record("chunked", 6.0),
    ]
    assert display.baselines(rows) == {rows[2]["key"]: rows[1]}


def test_errors_are_shown_where_they_were_measured(capsys):
    errors = {
        f"accuracy_{kind}_{what}_error": 3e-7
        for kind in ("random", "aligned")
        for what in ("value", "gradient")
    }
    text = shown([record("gram", 5.0, accuracy="ok", **errors)], capsys)
    assert "3e-07 / 3e-07" in text
    assert "- / -" in text  # not measured on collapsed inputs


@pytest.mark.parametrize("show", [display.counts, lambda rows: display.measurements(rows, "r")])
def test_a_long_setting_is_not_cut(show, capsys):
    show([record("gram", 5.0, settings=LONG), record("reference", 9.0, settings=LONG)])
    text = capsys.readouterr().out
    assert text.count("dependency=squared_correlation") == 1
    assert "smi (1) gram" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("changes", "table"),
    [
        ({}, "implementations"),
        ({"world": 8, "distribution": "gather"}, "efficiency"),
        ({"world": 8, "distribution": "gram"}, "distributed"),
        ({"world": 2, "processes": 2}, "distributed"),
        ({"contender": "a:b"}, "third_parties"),
    ],
)
def test_the_next_command_shows_these_records(changes, table, capsys):
    assert f"next: lossreport table {table} run.jsonl" in shown(
        [record("gram", 1.0) | changes], capsys
    )
