"""Merging run files: in whatever order and groups, each record is taken once."""

from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import case, measured

from lossbench.bench.records.runfile import SCHEMA, Run, RunFileError
from lossbench.reports.records import load, merge, to_frame


def header(created: str) -> dict:
    facts = {"cpu": "Test CPU", "threads": 2, "torch": "2.13.0"}
    hashes = {"environment_hash": "e", "code_hash": "c"}
    return {"schema": SCHEMA, "environment": facts, "created": created, **hashes}


one_record = st.builds(
    lambda key, ms: case(key) | (measured(ms) if ms else {}),
    st.sampled_from("abc"),
    st.sampled_from([0, 1, 2, 3]),
)
one_run = st.builds(
    lambda created, records: Run(
        Path("run"), header(created), list({record["key"]: record for record in records}.values())
    ),
    st.sampled_from(["2026-01-01", "2026-01-02"]),
    st.lists(one_record, max_size=4),
)
groups = st.lists(st.lists(one_run, max_size=3), min_size=1, max_size=4)


def rows(runs: list[Run]) -> list[tuple[dict, dict]]:
    return [(record, run.header) for run in runs for record in run.records]


def in_any_order(merged: dict) -> list:
    return sorted(merged.items())


@given(groups, st.randoms())
def test_groups_and_order_do_not_matter(grouped, rng):
    at_once = merge(rows(list(chain.from_iterable(grouped))))
    shuffled = [rng.sample(runs, len(runs)) for runs in rng.sample(grouped, len(grouped))]
    by_group = merge(chain.from_iterable(merge(rows(runs)).values() for runs in shuffled))
    assert in_any_order(by_group) == in_any_order(at_once)


@given(st.lists(one_run, min_size=1, max_size=4))
def test_merging_again_changes_nothing(runs):
    once = merge(rows(runs))
    assert merge([*rows(runs), *rows(runs), *once.values()]) == once
    assert set(once) == {record["key"] for run in runs for record in run.records}


@given(st.lists(one_run, min_size=1, max_size=4))
def test_the_best_row_is_kept(runs):
    for key, (record, head) in merge(rows(runs)).items():
        others = [row for row in rows(runs) if row[0]["key"] == key]
        assert (record, head) in others
        rank = record["status"] == "ok", head["created"]
        assert rank == max((other["status"] == "ok", at["created"]) for other, at in others)


def test_files_are_merged_as_rows_are(write_run):
    old = [case("a"), case("b", "gram") | measured(2.0)]
    new = [case("a") | measured(1.0), case("b", "gram"), case("c", "chunked")]
    paths = [
        write_run(old, "old.jsonl", created="2026-01-01"),
        write_run(new, "new.jsonl", created="2026-01-02"),
        write_run([], "empty.jsonl"),
    ]
    for order in (paths, paths[::-1], paths * 2):
        merged = load(order).set_index("key")
        assert merged["status"].to_dict() == {"a": "ok", "b": "ok", "c": "oom"}
        assert merged["median_ms"].dropna().to_dict() == {"a": 1.0, "b": 2.0}


def test_runs_without_records_alone_are_an_error(write_run):
    empty = write_run([], "empty.jsonl")
    with pytest.raises(ValueError, match=r"empty\.jsonl, .*no records yet; run lossbench run"):
        load([empty, empty])


@pytest.mark.parametrize("schema", [0, 2])
def test_another_schema_among_several_files_is_refused_by_name(write_run, schema):
    right = write_run([case("a")], "right.jsonl")
    wrong = write_run([case("b")], "wrong.jsonl", schema=schema)
    with pytest.raises(RunFileError, match=rf"wrong\.jsonl:1: schema {schema} is not the {SCHEMA}"):
        load([right, wrong])


def test_what_follows_from_a_case_need_not_be_written(write_run):
    bare = case("a", world=4, distribution="gather")
    del bare["loss_batch"], bare["evaluations"], bare["variant"]
    row = load([write_run([bare, bare | {"key": "b", "distribution": "local"}])])
    assert row["loss_batch"].tolist() == [32, 8]
    assert row["evaluations"].tolist() == [1, 4]


@pytest.mark.parametrize("field", ["batch", "dim", "dtype", "inputs", "distribution", "world"])
def test_a_record_of_an_unknown_case_is_refused_by_line(write_run, field):
    records = [case("a"), case("b")]
    del records[1][field]
    with pytest.raises(RunFileError, match=rf"run\.jsonl:3: {field} must be .*, got 'nothing'"):
        load([write_run(records)])


def test_to_frame_nulls_what_a_failed_case_measured():
    failed = case("a") | measured(1.0) | {"status": "invalid", "reason": "wrong"}
    frame = to_frame([Run(Path("run"), header("2026-01-01"), [failed])])
    assert frame[["median_ms", "peak_bytes", "samples_ms"]].isna().all(axis=None)
