"""The test of a machine for other work: by made-up counters of the system, and what it says."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossbench.bench.comparing.drift import DRIFT
from lossbench.bench.measuring import spin as spin_module
from lossbench.bench.measuring.disturbance import STALLED, TAKEN
from lossbench.bench.measuring.spin import BUSY, NAMES, PREFIX, Spin, of
from lossbench.bench.measuring.spin import spin as real_test
from lossbench.bench.records import fields

rates = st.one_of(st.none(), st.floats(0, 1e6))
spins = st.builds(
    Spin, slowdown=st.floats(1, 1e6), waited=rates, steal=rates, pressure=rates, switches=rates
)


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Writes what the system counted of steal and pressure."""
    stat, pressure = tmp_path / "stat", tmp_path / "pressure"
    monkeypatch.setattr(spin_module, "STAT", stat)
    monkeypatch.setattr(spin_module, "PRESSURE", pressure)

    def write(steal, total, some_us):
        busy = total - steal
        stat.write_text(f"cpu  {busy} 0 0 0 0 0 0 {steal} 0 0\ncpu0 1 2 3\n")
        pressure.write_text(
            f"some avg10=1.00 avg60=2.00 avg300=3.00 total={some_us}\nfull avg10=0 total=9\n"
        )

    return write


def test_steal_is_a_share_of_all_cores_and_pressure_one_of_the_time(system, monkeypatch):
    system(100, 1000, 5_000_000)
    monkeypatch.setattr(spin_module.time, "perf_counter", lambda: 10.0)
    before = spin_module._steal(), spin_module._pressure()
    system(150, 1200, 5_500_000)
    monkeypatch.setattr(spin_module.time, "perf_counter", lambda: 12.0)
    after = spin_module._steal(), spin_module._pressure()
    found = [spin_module._share(*each) for each in zip(before, after, strict=True)]
    assert found == [pytest.approx(50 / 200), pytest.approx(0.5 / 2)]


def test_a_system_that_counts_neither_is_tested_all_the_same(monkeypatch, tmp_path):
    for name in ("STAT", "PRESSURE"):
        monkeypatch.setattr(spin_module, name, tmp_path / "missing")
    found = real_test(0.0)
    assert (found.steal, found.pressure) == (None, None)
    assert found.slowdown >= 1


def test_this_machine_is_tested():
    found = real_test(0.02)
    assert found.slowdown >= 1
    assert found.switches >= 0
    assert all(share >= 0 for share in (found.waited, found.steal, found.pressure) if share)
    assert fields.problem({"spin": found.describe()}, fields.HEADER) is None
    assert fields.problem(found.fields(), fields.RECORD) is None


@settings(deadline=None)
@given(spins)
def test_a_header_and_a_record_hold_what_was_found(found):
    for said, prefix in ((found.describe(), ""), (found.fields(), PREFIX)):
        again = of(json.loads(json.dumps(said)), prefix)
        for name in NAMES:
            value = getattr(found, name)
            assert getattr(again, name) == (
                None if value is None else pytest.approx(value, abs=1e-4)
            )


def test_a_record_without_a_test_says_nothing():
    assert of(None) is None
    assert of({}) is None
    assert of({"spin_slowdown": float("nan"), "spin_waited": float("nan")}, PREFIX) is None


def test_the_page_about_verdicts_names_the_limits():
    page = (Path(__file__).parents[3] / "docs" / "verdicts.md").read_text()
    section = " ".join(page.split("## A busy machine")[1].split("\n## ")[0].split())
    for limit in (
        f"waited for a core for more than {TAKEN:.0%} of its time",
        f"more than {STALLED:g} times the best of the same call",
        f"for more than {BUSY:.0%} of the test",
        f"a piece takes over {STALLED:g} times as long",
        f"More than {DRIFT:.0%} up or down",
    ):
        assert limit in section


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Spin(1.0), []),
        (Spin(STALLED, waited=BUSY, steal=BUSY, pressure=1.0, switches=1e3), []),
        (Spin(1.0, waited=0.38), ["threads had to wait for a core 38% of the time"]),
        (Spin(1.0, waited=0.01, steal=0.5), ["its host took 50% of the time"]),
        (Spin(12.4, waited=0.0), ["small parallel work takes 12 times as long as at best"]),
        (Spin(12.4, waited=0.38), ["threads had to wait for a core 38% of the time"]),
    ],
)
def test_a_busy_machine_is_named_by_what_was_seen(found, said):
    assert found.signs == said
    assert bool(found.warning) == bool(said)
    for sign in said:
        assert found.warning.startswith(f"the machine is busy: {sign}; ")
