"""The table of implementations, the fair table, and what they say of third parties."""

import pandas as pd
import pytest

from lossbench.bench.cases.case import Case
from lossbench.bench.counting.counting import count
from lossbench.reports.page import make_table
from lossbench.reports.records import load
from lossbench.reports.tables import fair, implementations, third_parties

TIMES = {"reference": 100.0, "gram": 20.0, "chunked": 21.0, "compiled": 90.0}


def record(case: Case, ms: float, **fields) -> dict:
    """A record with real counts and made-up times that vary by 10% about ``ms``."""
    times = {"median_ms": ms, "p20_ms": ms, "p80_ms": ms, "peak_bytes": 2_000_000}
    samples = {"samples_ms": [ms * factor for factor in (0.9, 1.0, 1.1, 1.0)]}
    pair = {"pair_group": "g", "pair_processes": 2}
    errors = {
        f"accuracy_{kind}_{what}_error{suffix}": 1.0 if suffix else 1e-7
        for kind in ("random", "aligned", "collapsed")
        for what in ("value", "gradient")
        for suffix in ("", "_to_reference")
    }
    made = {"key": case.label, "status": "ok", "reason": "", **case.describe(), **count(case)}
    return {**made, **times, **samples, **pair, **errors, **fields}


@pytest.fixture(scope="module")
def ways():
    cases = {way: Case("vicreg", way, 8, 16) for way in TIMES}
    first_call = {"compiled": {"first_call_ms": 5000.0}}
    return [record(cases[way], ms, **first_call.get(way, {})) for way, ms in TIMES.items()]


@pytest.fixture(scope="module")
def contenders():
    third = Case("vicreg", "pml", 8, 16, contender="pytorch_metric_learning.losses:VICRegLoss")
    broken = Case("vicreg", "broken", 8, 16, contender="pytorch_metric_learning.losses:VICRegLoss")
    failed = {"status": "invalid", "reason": "broken ignores its second view"}
    lost = ("median_ms", "p20_ms", "p80_ms", "peak_bytes", "samples_ms")
    equal = {"parity": "equals 0.025 x ours", "contender_version": "2.9"}
    invalid = {k: v for k, v in record(broken, 1.0).items() if k not in lost} | failed
    return [record(third, 60.0, **equal), invalid]


def build(write_run, records):
    sections = implementations.build(load([write_run(records)]))
    return {section.title.partition(":")[0]: section for section in sections}


def test_the_fastest_is_marked_and_ratios_are_to_the_reference(ways, write_run):
    cost = build(write_run, ways)["Implementations"].frame.set_index("implementation")
    assert cost.index[0] == "reference"
    assert set(cost[cost["best"] == "*"].index) == {"gram"}
    assert cost["times_faster"]["gram"] == pytest.approx(5.0)
    assert set(cost["verdict"].drop("reference")) == {"FASTER"}
    low, high = map(float, cost["interval"]["gram"].split("-"))
    assert 4.6 < low < 5 < high < 5.4  # both vary alike from round to round


def test_compiling_is_paid_back_by_what_it_saves(ways, write_run):
    compilation = build(write_run, ways)["Compilation"].frame
    assert compilation["break_even"].item() == pytest.approx(5000 / 10)
    slower = [dict(r, median_ms=200.0) if r["implementation"] == "compiled" else r for r in ways]
    assert build(write_run, slower)["Compilation"].text().iloc[0, -1] == "-"


def test_a_contender_has_a_row_with_its_parity_and_its_time_to_our_best(
    ways, contenders, write_run
):
    sections = build(write_run, ways + contenders)
    rows = third_parties.build(load([write_run(ways + contenders)]))[0].frame.set_index("name")
    assert rows["finding"].to_dict() == {
        "pml": "equals 0.025 x ours",
        "broken": "broken ignores its second view",
    }
    assert rows["ratio"]["pml"] == pytest.approx(3.0)
    assert rows["verdict"]["pml"] == "SLOWER"
    cost = sections["Implementations"].frame.set_index("implementation")
    assert cost["status"]["broken"] == "invalid"
    assert cost["times_faster"]["gram"] == pytest.approx(5.0)  # the others are unaffected


def test_a_run_without_contenders_or_errors_has_no_such_section(ways, write_run):
    with pytest.raises(ValueError, match="run lossbench run --contender"):
        third_parties.build(load([write_run(ways)]))
    bare = [{k: v for k, v in r.items() if not k.startswith("accuracy_")} for r in ways]
    assert set(build(write_run, bare)) == {"Implementations", "Arithmetic", "Compilation"}


def test_tables_fit_80_columns(ways, contenders, records, write_run):
    run = write_run(ways + contenders)
    texts = [make_table(name, [run], "terminal") for name in ("implementations", "third_parties")]
    texts.append(make_table("fair", [write_run(records)], "terminal"))
    assert max(len(line) for text in texts for line in text.splitlines()) <= 80


def fair_rows(records, write_run) -> dict[str, pd.DataFrame]:
    sections = fair.build(load([write_run(records)]))
    return {section.title: section.frame.set_index("loss") for section in sections}


def test_fair_takes_each_loss_at_its_fastest(records, write_run):
    quick = [
        dict(r, median_ms=2.0, samples_ms=[2.0] * 4)
        if (r["loss"], r["implementation"]) == ("vicreg", "auto")
        else r
        for r in records
    ]
    tables = fair_rows(quick, write_run)
    assert len(tables) == 2  # local and gathered
    for table in tables.values():
        assert table["implementation"]["VICReg"] == "auto: gram"
        assert table["ratio"]["VICReg"] == pytest.approx(0.2, rel=0.01)
        assert pd.isna(table["ratio"]["SMI"])
        assert table["verdict"]["VICReg"] == "FASTER"


def test_fair_counts_what_was_not_measured(records, write_run):
    left = ("median_ms", "p20_ms", "p80_ms", "samples_ms", "peak_bytes")
    counted = [
        {k: v for k, v in r.items() if k not in left} | {"status": "timeout"} for r in records
    ]
    for title, table in fair_rows(counted, write_run).items():
        n = 256 if "local" in title else 2048
        side = min(n, 512)
        triangle = sum(side * (n - i) for i in range(0, n, side))  # tiles of one view's Gram
        macs = (2048 // n) * (2 * triangle + 2 * n * n) * 8192
        assert table["gmacs"]["Barlow Twins"] == pytest.approx(macs / 1e9)
        assert table["median_ms"].isna().all()
