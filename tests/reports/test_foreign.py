"""Files of other tools: read as the records they stand for, or refused by line."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import case, lossreport, measured

from lossbench.bench.records.runfile import RunFileError, RunFileWarning
from lossbench.reports.compare import open_sides, pair
from lossbench.reports.foreign import recognises
from lossbench.reports.records import load, open_run

HEADER = "loss,implementation,batch,dim,dtype,pass,ms"
LINE = "smi,reference,8,16,float32,step,{}"


@pytest.fixture
def write(tmp_path):
    """A function that writes a file, with an end to its last line, and returns its path."""

    def run(content: str | bytes, name: str = "times.csv", end: bytes = b"\n"):
        path = tmp_path / name
        path.write_bytes((content if isinstance(content, bytes) else content.encode()) + end)
        return path

    return run


def benchmark(name: str = "test_it[8-16]", seconds=(0.001, 0.002, 0.003), **extra) -> dict:
    said = {"batch": 8, "dim": 16, "dtype": "float32", "pass": "step", **extra}
    params = {name: said.pop(name) for name in ("batch", "dim") if name in said}
    stats = {"data": list(seconds), "median": sorted(seconds)[len(seconds) // 2]}
    return {"name": name, "params": params, "extra_info": said, "stats": stats}


def document(*benchmarks: object, **facts) -> str:
    machine = {"system": "Linux", "release": "6.1", "python_version": "3.11.7"}
    machine["cpu"] = {"brand_raw": "Test CPU", "count": 2}
    return json.dumps(
        {
            **{"machine_info": machine, "benchmarks": list(benchmarks)},
            **{"datetime": "2026-11-21T10:47:41+00:00", **facts},
        },
        indent=4,
    )


def test_lines_of_a_case_are_its_samples(write):
    lines = [LINE.format(3), "vicreg,gram,8,16,float32,step,7", LINE.format(1), "", LINE.format(2)]
    records = load([write("\n".join([HEADER, *lines]))]).set_index("loss")
    assert records["samples_ms"].to_dict() == {"smi": [3, 1, 2], "vicreg": [7]}
    assert records["median_ms"].to_dict() == {"smi": 2, "vicreg": 7}
    assert records["loss_batch"].tolist() == [8, 8]


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=20))
def test_a_csv_gives_back_its_times(tmp_path_factory, samples):
    path = tmp_path_factory.mktemp("csv") / "times"
    path.write_text("\n".join([HEADER, *(LINE.format(repr(ms)) for ms in samples), ""]))
    record = open_run(path).records[0]
    assert record["samples_ms"] == samples
    assert record["median_ms"] == pytest.approx(np.median(samples))


@pytest.mark.parametrize("content", [f"{HEADER}\r\n{LINE.format(1)}\r\n", f"﻿{HEADER}\n" + LINE])
def test_line_ends_and_marks_of_other_systems(write, content):
    assert len(load([write(content.format(1))])) == 1


def test_columns_may_stand_in_any_order_and_say_more(write):
    content = "ms,pass,dtype,dim,batch,implementation,loss,world,distribution,products\n"
    row = load([write(content + "5,step,float32,16,8,gram,smi,4,gather,tf32")]).iloc[0]
    assert (row["median_ms"], row["loss_batch"], row["products"]) == (5, 32, "tf32")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r" is empty"),
        ("x", r":1: columns: missing loss, implementation, batch, dim, dtype, pass, ms"),
        (HEADER.replace("ms", "time"), r":1: columns: missing ms; unknown time"),
        (HEADER + ",ms", r":1: columns: repeated ms"),
        (f"{HEADER}\n{LINE},", r":2: 8 cells, but 7 columns"),
        (f"{HEADER}\n{LINE.format(1)}\n,gram,8,16,float32,step,1", r":3: loss must be a name"),
        (f"{HEADER}\nsmi, ,8,16,float32,step,1", r":2: implementation must be a name"),
        (f"{HEADER}\nsmi,gram,8,16,float32,train,1", r":2: pass must be one of forward"),
        (f'{HEADER}\nsmi,"gram,8', r":2: not CSV"),
        (HEADER.encode() + b"\nsmi,\xff,8,16,float32,step,1", r":2: not UTF-8"),
        *(
            (f"{HEADER}\n{LINE.format(1)}\n{LINE.format(ms)}", r":3: ms must be a time above 0 ms")
            for ms in ("", "x", "0", "-1", "nan", "inf", "1e999", "1_0", "1s")
        ),
        *(
            (f"{HEADER}\nsmi,gram,{n},16,float32,step,1", r":2: batch must be a whole number")
            for n in ("", "8.0", "0", "-8", "8_0", "1e3", "9" * 30, "x")
        ),
        (f"{HEADER}\nsmi,gram,8,16.5,float32,step,1", r":2: dim must be a whole number"),
        (HEADER, r" is empty: it holds no time"),
    ],
)
def test_a_damaged_csv_is_refused_by_line(write, content, message):
    path = write(content)
    with pytest.raises(ValueError, match=re.escape(str(path)) + message):
        load([path])
    result = lossreport("compare", path, path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)


def test_benchmarks_say_their_case_in_parameters_or_extra_info(write):
    own = benchmark(loss="smi", implementation="gram", peak_bytes=5, time_ratio={"value": 1.0})
    path = write(document(own, benchmark("test_vicreg[8-16]")), "out.json")
    rows = load([path])
    assert rows["loss"].tolist() == ["smi", "test_vicreg"]
    assert rows["implementation"].tolist() == ["gram", "8-16"]
    assert rows["median_ms"].tolist() == pytest.approx([2, 2])
    assert rows["machine"].tolist() == ["Test CPU, 2026-11-21"] * 2
    assert open_run(path).header["environment"]["cores"] == 2
    assert rows["peak_bytes"].iloc[0] == 5


def test_a_benchmark_without_its_data_has_a_median(write):
    saved = benchmark(loss="smi")
    del saved["stats"]["data"]
    assert load([write(document(saved), "out.json")])["samples_ms"].iloc[0] == pytest.approx([2])


def test_what_failed_in_a_benchmark_failed_here(write):
    wrong = benchmark(loss="smi", status="invalid", reason="the value is 2")
    assert load([write(document(wrong), "out.json")])["median_ms"].isna().all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{\n"machine_info": {},\n"benchmarks": [}', r":3: not JSON"),
        (document(benchmarks=3), r": no list of benchmarks"),
        (document(3), r": benchmarks\[0\]: not a benchmark"),
        (document(benchmark(), {"name": 5}), r": benchmarks\[1\]: not a benchmark"),
        (document(benchmark(batch=None, dim=None)), r": .*test_it\): no batch, dim; say it in"),
        (document(benchmark(batch="8")), r": benchmarks\[0\] \(test_it\): batch must be a whole"),
        (document(benchmark(seconds=[-1])), r": benchmarks\[0\] \(test_it\): samples_ms must be"),
        (document(benchmark(seconds=[float("nan")])), r": .*stats must have data or a median"),
        (document(benchmark(seconds=[10**400])), r": .*stats must have data or a median"),
        (document(benchmark() | {"stats": None}), r": .*stats must have data or a median"),
        (document(benchmark(peak_bytes=-1)), r": .*peak_bytes must be a number from 0"),
        (document(), r" is empty: it holds no time"),
        (document(benchmark(pair_processes=2)), r": .*samples_ms must be as many in each of the"),
        (document(benchmark(pair_group="g")), r": .*pair_processes must be"),
    ],
)
def test_a_damaged_document_is_refused_by_benchmark(write, content, message):
    path = write(content, "out.json")
    with pytest.raises(ValueError, match=re.escape(str(path)) + message):
        load([path])


def test_a_csv_that_may_be_cut_off_says_so(write):
    content = f"{HEADER}\n{LINE.format(1)}\n{LINE.format(1)}"
    path = write(content, end=b"")
    with pytest.warns(RunFileWarning, match="times.csv: its last line has no end"):
        assert len(load([path])["samples_ms"].iloc[0]) == 2
    assert "warning: " in lossreport("compare", path, path).stderr
    assert lossreport("compare", write(content), write(content)).stderr == ""


def test_losses_of_this_project_have_their_titles(write):
    lines = [LINE.format(1), LINE.format(2).replace("smi", "mine")]
    rows = load([write("\n".join([HEADER, *lines]))]).set_index("loss")
    assert rows["title"].dropna().to_dict() == {"smi": "SMI"}
    own = write(document(benchmark(loss="smi", title="Ours")), "out.json")
    assert load([own])["title"].tolist() == ["Ours"]


def test_files_are_recognised_by_their_content(write, write_run):
    csv, out = f"{HEADER}\n{LINE.format(1)}", document(benchmark(loss="smi"))
    assert recognises(write(csv, "times.txt"))
    assert recognises(write(out, "out.txt"))
    assert recognises(write(json.dumps(json.loads(out)), "out.jsonl"))
    assert not recognises(write_run([case("a") | measured(1.0)]))
    assert not recognises(write("a line of somebody's notes", "notes.txt"))
    with pytest.raises(RunFileError, match=r"none\.csv cannot be read"):
        load([write(csv).with_name("none.csv")])


def test_kinds_of_files_are_compared_with_one_another(write, write_run):
    run = write_run([case("a") | measured(2.0)])
    csv = write("\n".join([HEADER, *(LINE.format(ms) for ms in (3.9, 4.0, 4.1))]))
    out = write(document(benchmark(loss="smi", implementation="reference")), "out.json")
    base, *others = open_sides([run, csv, out])
    assert [pair(base, side)["ratio"].item() for side in others] == pytest.approx([2, 1])


def test_two_files_of_the_same_cases_are_not_one(write):
    csv = f"{HEADER}\n{LINE.format(1)}"
    paths = [write(csv, "one.csv"), write(csv + "\n" + LINE.format(2), "two.csv")]
    assert len(load(paths)) == 2
    assert len(load([paths[0]] * 2)) == 1
