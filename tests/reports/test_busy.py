"""Times that were taken beside other work: what tables say, and what gates do not fail on."""

import json
from pathlib import Path

import pytest
from made_up import case, lossreport, measured

from lossbench.reports import busy, tables
from lossbench.reports.comparison import compare
from lossbench.reports.records import load

TABLES = ("efficiency", "implementations", "fair", "devices")
SPUN = {"spin_slowdown": 1.2, "spin_waited": 0.01}
"""What the test of a quiet machine says."""
WORDS = "Beside other work: "


@pytest.fixture
def frame(write_run):
    return lambda *records: load([write_run(list(records))])


def calm(key, ms=10.0, **fields):
    return case(key) | measured(ms, disturbed=0, retaken=1, drift=1.01, **SPUN) | fields


def notes(text):
    """The sentence of a page that is printed, whatever its lines."""
    return " ".join(text.split())


def test_nothing_is_said_of_a_quiet_machine_or_of_records_that_do_not_say(frame):
    for record in (calm("a"), case("a") | measured(10.0), case("a")):
        rows = frame(record)
        assert busy.note(rows) == []
        assert not busy.is_busy(rows).any()
        assert not busy.is_lost(rows).any()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"disturbed": 1}, "1 of 8 samples stayed disturbed"),
        ({"spin_waited": 0.38}, "threads had to wait for a core 38% of the time"),
        ({"spin_steal": 0.25}, "its host took 25% of the time"),
        ({"spin_slowdown": 30.0}, "small parallel work takes 30 times as long as at best"),
        ({"drift": 1.5}, "all calls took 1.50 times as long at the end of their rounds"),
        ({"drift": 0.5}, "all calls took 0.50 times as long at the end of their rounds"),
    ],
)
def test_each_sign_is_said_in_one_sentence(frame, fields, said):
    (note,) = busy.note(frame(calm("a", **fields), calm("b", implementation="gram")))
    assert note.startswith(WORDS)
    assert said in note
    assert note.count(". ") == 0


def test_the_worst_of_several_is_said(frame):
    rows = frame(
        calm("a", spin_waited=0.2, drift=1.2),
        calm("b", implementation="gram", spin_waited=0.7, drift=0.3),
        calm("c", implementation="chunked", spin_waited=0.5),
    )
    (note,) = busy.note(rows)
    assert "70%" in note
    assert "0.30 times" in note
    assert "20%" not in note


@pytest.mark.parametrize(
    ("fields", "is_busy"),
    [
        ({"disturbed": 1}, False),  # a quarter of the samples
        ({"disturbed": 2}, True),
        ({"spin_waited": 0.09}, False),
        ({"spin_waited": 0.2}, True),
        ({"drift": 1.14}, False),
        ({"drift": 1.2}, True),
    ],
)
def test_a_record_is_of_a_busy_machine_by_any_strong_sign(frame, fields, is_busy):
    rows = frame(calm("a", **fields), calm("b", implementation="gram"))
    assert busy.is_busy(rows).tolist() == [is_busy, False]


def test_no_ratio_is_made_of_disturbed_samples_alone(frame):
    rows = frame(calm("a", disturbed=4), calm("b", implementation="gram", disturbed=3))
    assert busy.is_lost(rows).tolist() == [True, False]
    for baseline in (0, 1):
        found = compare(rows, dict.fromkeys(rows.index, rows.loc[baseline]))
        assert found.loc[0, ["ratio", "verdict"]].isna().all()
    assert found.loc[1, "ratio"] == pytest.approx(1.0)  # to itself
    (note,) = busy.note(rows)
    assert "7 of 8 samples" in note
    assert "nothing is claimed from 1 case, all of whose samples are" in note


def test_every_table_of_times_asks_whether_they_were_disturbed():
    folder = Path(tables.__file__).parent
    texts = {path.stem: path.read_text() for path in folder.glob("[a-z]*.py")}
    of_times = {name for name, text in texts.items() if "milliseconds" in text}
    assert set(TABLES) - {"devices"} < of_times
    assert of_times <= {name for name, text in texts.items() if "busy.note(" in text}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_disturbed_times_says_so(records, write_run, name):
    quiet = [dict(record, disturbed=0, **SPUN) for record in records]
    run = write_run(quiet)
    assert WORDS not in lossreport("table", name, run, "--format", "markdown").stdout
    run = write_run([dict(record, disturbed=1) for record in quiet])
    result = lossreport("table", name, run, "--format", "markdown")
    assert WORDS in result.stdout, result.stderr


@pytest.fixture
def gate(write_run):
    def run(base, new, gates="slower"):
        runs = write_run(base, "a.jsonl"), write_run(new, "b.jsonl")
        return lossreport("compare", *runs, "--fail-on", gates)

    return run


BUSY_FIELDS = [{"disturbed": 2}, {"spin_waited": 0.5}, {"drift": 1.4}]


@pytest.mark.parametrize("where", ["base", "new"])
@pytest.mark.parametrize("fields", BUSY_FIELDS)
def test_slower_on_a_busy_machine_is_a_status_of_its_own(gate, tmp_path, fields, where):
    base, new = [calm("a")], [calm("b", 30.0)]
    assert gate(base, new).returncode == 1
    one = base if where == "base" else new
    one[0] |= fields
    result = gate(base, new)
    assert result.returncode == 3
    assert result.stderr.startswith(
        f"lossreport: cannot judge slower in B, {tmp_path / 'b.jsonl'}: SMI reference: "
    )
    assert "no failure" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "SLOWER" in result.stdout  # it is shown, with what speaks against it
    name = {"base": "A", "new": "B"}[where]
    assert f"{name}: {WORDS}" in notes(result.stdout)


def test_a_case_that_was_measured_in_quiet_fails_beside_one_that_was_not(gate):
    base = [calm("a"), calm("b", implementation="gram")]
    new = [calm("c", 30.0, disturbed=3), calm("d", 30.0, implementation="gram")]
    result = gate(base, new)
    assert result.returncode == 1
    failed, doubted = result.stderr.splitlines()
    assert failed.startswith("lossreport: slower in B, ")
    assert failed.endswith(": SMI gram")
    assert "cannot judge slower in B" in doubted
    assert "SMI reference" in doubted


def test_memory_and_errors_fail_on_a_busy_machine_too(gate):
    base = [calm("a")]
    new = [calm("b", 30.0, disturbed=4, peak_bytes=2_000_000)]
    assert gate(base, new, "slower,bigger").returncode == 1
    assert gate(base, new, "bigger").returncode == 1
    assert gate(base, new, "wrong").returncode == 0
    assert gate(base, [calm("b", disturbed=3)], "slower").returncode == 0  # as quick as before


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("ms", [10.0, 30.0])
def test_a_run_of_disturbed_samples_alone_is_not_judged(write_run, ms, where):
    records = [calm("a"), calm("b", ms)]
    records[where]["disturbed"] = 4
    runs = write_run(records[:1], "a.jsonl"), write_run(records[1:], "b.jsonl")
    result = lossreport("compare", *runs, "--fail-on", "slower", "--format", "json")
    assert result.returncode == 3
    cases, summary = json.loads(result.stdout)
    row = cases["rows"][1]
    assert (row["low"], row["high"], row["verdict"]) == (None, None, "UNRESOLVED")
    assert (summary["rows"][0]["SLOWER"], summary["rows"][0]["UNRESOLVED"]) == (0, 1)
    assert any("nothing is claimed from 1 case" in note for note in summary["notes"])
    assert lossreport("compare", *runs).returncode == 0
