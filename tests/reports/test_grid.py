"""The table of one quantity over many shapes, choice of columns, LaTeX, and the fair table."""

import itertools
import re

import pandas as pd
import pytest
from made_up import lossreport, measured

import lossbench
from lossbench.reports.records import load
from lossbench.reports.section import Column, Section, render
from lossbench.reports.tables import fair, grid

BATCHES, DIMS = (64, 256, 1024), (128, 512)
WAYS = {"reference": 2.0, "gram": 1.0}
TIMES = {"smi": 1.0, "vicreg": 3.0}
REASON = "NotImplementedError: 50% of a_b & {c}"


def step(loss, way, batch, dim, ms, **fields):
    """Timed in turn with all others of its shape."""
    what = {"loss": loss, "title": loss.upper(), "implementation": way, "pass": "step"}
    shape = {"batch": batch, "loss_batch": batch, "dim": dim, "world": 1, "evaluations": 1}
    usual = {"dtype": "float32", "distribution": "local", "inputs": "random"}
    empty = {"variant": "", "options": "", "products": "", "contender": "", "hyperparameters": ""}
    pair = {"pair_group": f"{batch} {dim}"}
    made = {**what, **shape, **usual, **empty, **measured(ms, **pair), **fields}
    return {"key": f"{loss} {way} {batch} {dim}", **made}


@pytest.fixture
def records():
    """Two losses by two implementations over a grid; VICReg by gram fails at the largest shape."""
    shapes = itertools.product(TIMES, WAYS, BATCHES, DIMS)
    rows = [
        step(loss, way, n, d, TIMES[loss] * WAYS[way] * n * d / 1e4) for loss, way, n, d in shapes
    ]
    lost = next(row for row in rows if row["key"] == "vicreg gram 1024 512")
    for name in ("median_ms", "p20_ms", "p80_ms", "samples_ms", "peak_bytes", "gmacs"):
        del lost[name]
    lost.update(status="unsupported", reason=REASON)
    return rows


def test_each_loss_by_its_fastest_over_all_shapes(records, write_run):
    (section,) = grid.build(load([write_run(records)]))
    assert list(section.frame["subject"]) == ["SMI", "SMI", "VICREG", "VICREG"]
    assert list(section.frame["dim"]) == [128, 512, 128, 512]
    headers = [column.header for column in section.columns.values()]
    assert headers == ["loss", "D", "N = 64", "N = 256", "N = 1024"]
    values = section.frame[[name for name in section.columns if name.startswith("N")]]
    expected = [[TIMES[s] * n * d / 1e4 for n in BATCHES] for s in TIMES for d in DIMS]
    expected[3][2] *= 2  # by the reference, since gram failed
    assert values.to_numpy().tolist() == [pytest.approx(row) for row in expected]
    assert section.marks == {}


def test_ratios_are_to_smi_at_the_same_shape(records, write_run):
    (section,) = grid.build(load([write_run(records)]), value="ratio")
    assert section.title.startswith("Grid: time to SMI")
    values = section.frame[[name for name in section.columns if name.startswith("N")]].to_numpy()
    assert values[:2] == pytest.approx(1.0)
    assert values[2] == pytest.approx(3.0, rel=0.01)
    assert values[3] == pytest.approx([3, 3, 6], rel=0.01)


def test_a_case_that_failed_has_a_letter_and_a_note(records, write_run):
    chosen = {"rows": "loss,implementation", "across": "batch,dim"}
    (section,) = grid.build(load([write_run(records)]), **chosen)
    assert section.notes[-1] == f"[a] {REASON}."
    text = section.text()
    assert list(text.columns)[2:4] == ["N = 64, D = 128", "N = 64, D = 512"]
    assert text["N = 1024, D = 512"].iloc[3] == "- [a]"
    assert sum(cell == "- [a]" for row in text.to_numpy() for cell in row) == 1


def test_what_goes_neither_down_nor_across_makes_sections(records, write_run):
    sections = grid.build(load([write_run(records)]), rows="loss", across="batch")
    assert len(sections) == len(DIMS)
    assert [re.search(r"\((.*)\)", each.title)[1] for each in sections] == [
        "D = 128, step",
        "D = 512, step",
    ]


@pytest.mark.parametrize("value", grid.VALUES)
def test_every_quantity_is_shown(records, write_run, value):
    for record in records:
        record.update(elementwise=12_345_678, transcendentals=12_345)
    (section,) = grid.build(load([write_run(records)]), value=value)
    shown = section.text()["N = 64"].iloc[0]
    fixed = {"mb": "1.0", "gmacs": "1.00e-08", "elementwise": "12.3M", "transcendentals": "12.3k"}
    assert shown == fixed.get(value, shown)
    assert shown != "-"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "los"], "unknown axis in --rows 'los'; did you mean 'loss'"),
        (["--rows", "loss,loss"], "--rows loss,loss: an axis is named twice"),
        (["--rows", "loss,dim", "--across", "dim"], "dim cannot go down and across"),
        (["--value", "s"], "unknown value of table grid 's'; did you mean 'ms'"),
        (["--columns", "nothing"], "unknown column of table grid 'nothing'"),
    ],
)
def test_bad_choices_are_one_line(records, write_run, arguments, message):
    done = lossreport("table", "grid", write_run(records), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_table_that_is_shown_in_one_way_says_so(records, write_run):
    done = lossreport("table", "implementations", write_run(records), "--value", "ms")
    assert done.returncode == 2
    assert "table implementations is shown in one way: leave value out" in done.stderr


@pytest.mark.parametrize("asked", ["loss,by,ms", "loss,implementation,median_ms"])
def test_columns_are_chosen_by_header_or_name(records, write_run, asked):
    path = write_run(records)
    done = lossreport("table", "implementations", path, "--columns", asked, "--format", "markdown")
    assert done.returncode == 0, done.stderr
    heads = {line for line in done.stdout.splitlines() if line.startswith("| loss")}
    assert {tuple(head.split()) for head in heads if "ms" in head} == {
        ("|", "loss", "|", "by", "|", "ms", "|")
    }
    table = lossbench.table("implementations", path, columns=["ms"])
    assert {tuple(section.columns) for section in table} == {("median_ms",)}


def test_latex_is_one_table_with_a_short_caption(records, write_run):
    chosen = ["--rows", "loss,implementation", "--across", "batch,dim", "--format", "latex"]
    text = lossreport("table", "grid", write_run(records), *chosen).stdout
    assert text.count(r"\begin{tabular}") == text.count(r"\end{table}") == 1
    assert r"\toprule" in text
    assert r"\label{tab:grid-time-ms-step}" in text
    caption = re.search(r"\\caption\{(.*)\}", text)[1]
    assert "NotImplementedError" not in caption
    assert len(caption) < 60
    below = text.partition(r"\end{tabular}")[2]
    assert r"\textsuperscript{a} NotImplementedError: 50\% of a\_b \& \{c\}." in below
    assert r"-\textsuperscript{a}" in text.partition(r"\end{tabular}")[0]


def test_latex_escapes_every_special_character():
    frame = pd.DataFrame({"x": [r"a_b%c&d#e$f{g}h~i^j\k<l>"]})
    text = render([Section("T", frame, {"x": Column("x", left=True)})], "latex")
    plain = text.replace(r"\textbackslash{}", "").replace(r"\textasciitilde{}", "")
    for word in ("textasciicircum", "textless", "textgreater"):
        plain = plain.replace(f"\\{word}{{}}", "")
    row = next(line for line in plain.splitlines() if line.startswith("a"))
    for character in "_%&#${}":
        assert len(re.findall(rf"(?<!\\){re.escape(character)}", row.replace(r"\\", ""))) == 0


def test_the_fair_table_is_of_any_run(records, write_run):
    sections = fair.build(load([write_run(records)]))
    assert len(sections) == len(BATCHES) * len(DIMS)
    first = sections[0]
    assert first.title == "Fair: every loss at its best, N = 64, D = 128, step"
    assert list(first.frame["implementation"]) == ["gram", "gram"]
    assert first.frame["ratio"].iloc[1] == pytest.approx(3.0, rel=0.01)
    assert "all 8 devices" not in first.notes[0]
