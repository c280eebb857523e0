"""Kinds of fields: what is written is read, and what cannot be written is refused."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossbench import losses
from lossbench.bench.cases import case
from lossbench.bench.pretraining.records import PASS
from lossbench.bench.records import fields, kinds
from lossbench.bench.records.runfile import read

RUNS = sorted((Path(__file__).parents[3] / "reports" / "results").glob("*/*.jsonl"))
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
    assert (*losses.PASSES, PASS, kinds.NOISE) == kinds.PASSES
    assert losses.DISTRIBUTIONS == kinds.DISTRIBUTIONS


def test_what_a_case_says_is_of_its_kind():
    said = case.Case("smi", batch=2, dim=1, hyperparameters={"lambda_": 2.0}).describe()
    assert set(fields.CASE) <= set(said)
    assert fields.problem(said, fields.RECORD) is None


@pytest.mark.parametrize(
    ("changed", "holds"),
    [
        ({}, True),
        ({"gemm_gflops": {}}, False),
        ({"gemm_gflops": {"float32": 0}}, False),
        ({"copy_gb_per_s": []}, False),
        ({"copy_gb_per_s": [[0.5, 10]]}, False),
        ({"copy_gb_per_s": [[2, 10], [1, 10]]}, False),
        ({"copy_gb_per_s": [[1, 10], [2]]}, False),
        ({"launch_us": None}, False),
    ],
)
def test_ceilings_have_a_rate_and_sizes_of_copies(changed, holds):
    found = {"gemm_gflops": {"float32": 1.0}, "copy_gb_per_s": [[1, 10.0]], "launch_us": 1.0}
    said = fields.problem({"calibration": found | changed}, fields.HEADER)
    assert (said is None) == holds


@pytest.mark.parametrize("group", [{}, {"pair_group": "g"}])
def test_samples_are_as_many_in_each_process_whatever_the_group(group):
    record = {"samples_ms": [1.0, 2.0, 3.0], **group}
    assert fields.record_problem(record | {"pair_processes": 3}) is None
    assert "as many in each" in fields.record_problem(record | {"pair_processes": 2})


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.stem)
def test_committed_runs_are_read_whole(run):
    lines = run.read_bytes().splitlines()[1:]
    assert read(run, needed=tuple(fields.CASE)).records == [json.loads(line) for line in lines]
