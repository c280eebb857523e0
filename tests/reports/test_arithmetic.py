"""All arithmetic of a loss in the tables, and what of it is not counted."""

import pytest

from lossbench.reports.arithmetic import note, section
from lossbench.reports.records import load
from lossbench.reports.tables import efficiency, implementations

COUNTED = {"elementwise": 2_000_000, "transcendentals": 65_536, "uncounted": ""}
OF_NO_FORMULA = {"elementwise": None, "transcendentals": None, "uncounted": "_fft_r2c"}


@pytest.fixture
def rows(records, write_run):
    """A loss that is counted, one of whose work some is not, and old records of the others."""
    known = {"smi": COUNTED, "vicreg": {**OF_NO_FORMULA, "gmacs": None}}
    return load([write_run([{**_old(r), **known.get(r["loss"], {})} for r in records])])


def _old(record):
    return {name: value for name, value in record.items() if name not in COUNTED}


def test_what_is_not_counted_is_a_dash_and_named(rows):
    made = section("All", rows)
    shown = made.text().set_index("loss")
    assert set(shown.loc["SMI", "other operations"]) == {"2,000k"}
    assert set(shown.loc["SMI", "exp, log, roots"]) == {"65.5k"}
    assert (
        set(shown.loc["VICReg", "GMACs"]) == set(shown.loc["VICReg", "other operations"]) == {"-"}
    )
    assert made.notes[-1] == "Not counted, so - stands there: VICReg: _fft_r2c."
    titles = {title.partition(" ")[0] for title in shown.index}
    assert titles == {"SMI", "VICReg"}  # the others do not know it


def test_counts_are_of_one_evaluation(rows):
    frame = section("All", rows).frame
    smi = rows[rows["loss"] == "smi"]
    assert frame["gmacs"][smi.index].tolist() == (smi["gmacs"] / smi["evaluations"]).tolist()


@pytest.mark.parametrize("table", [efficiency, implementations])
def test_tables_have_it_where_it_is_known(table, rows, records, write_run):
    named = "Not counted, so - stands there: VICReg: _fft_r2c."
    assert any(named in made.notes for made in table.build(rows))
    old = table.build(load([write_run([_old(record) for record in records])]))
    assert not any("rithmetic" in made.title for made in old)


def test_nothing_is_said_where_all_is_counted(rows):
    assert note(rows[rows["loss"] == "smi"], "elementwise") == []
