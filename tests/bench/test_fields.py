"""Kinds of fields: what is written is read, and what cannot be written is refused."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import losses
from bench import case, fields
from bench.runfile import read

RUNS = sorted((Path(__file__).parents[2] / "reports" / "results").glob("*/*.jsonl"))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.text(),
    st.integers(-(10**17), 10**17),
    st.floats(allow_nan=False, allow_infinity=False),
)
values = st.recursive(
    scalars, lambda some: st.lists(some) | st.dictionaries(st.text(), some), max_leaves=10
)


@given(st.dictionaries(st.text(), values))
def test_what_a_writer_writes_is_read_as_it_was(content):
    assert fields.parse(json.dumps(content).encode()) == content


@given(st.binary())
def test_anything_else_is_a_value_error(line):
    with contextlib.suppress(ValueError):
        assert fields.parse(line) == json.loads(line)


@given(st.dictionaries(st.sampled_from(sorted(fields.RECORD)), values))
def test_fields_are_judged_whatever_they_are(content):
    found = fields.problem(content, fields.RECORD)
    assert found is None or found.split()[0] in content
    assert fields.problem(content, fields.RECORD, ("key",)) or "key" in content


def test_words_are_those_of_the_losses_and_cases():
    assert fields.PASSES == losses.PASSES
    assert fields.DISTRIBUTIONS == case.DISTRIBUTIONS


def test_what_a_case_says_is_of_its_kind():
    said = case.Case("smi", batch=2, dim=1, hyperparameters={"lambda_": 2.0}).describe()
    assert set(fields.CASE) <= set(said)
    assert fields.problem(said, fields.RECORD) is None


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.stem)
def test_committed_runs_are_read_whole(run):
    lines = run.read_bytes().splitlines()[1:]
    assert read(run, needed=tuple(fields.CASE)).records == [json.loads(line) for line in lines]
