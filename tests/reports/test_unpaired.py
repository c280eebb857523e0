"""Intervals of ratios between sessions: they hold the truth as often as they say."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossbench.reports import unpaired

MIRRORED = {"FASTER": "SLOWER", "SLOWER": "FASTER"}
times = st.floats(0.001, 1e6)
records = st.fixed_dictionaries(
    {
        "samples_ms": st.lists(times, min_size=1, max_size=12),
        "pair_processes": st.sampled_from([None, 1, 2, 3]),
        "pair_noise": st.one_of(st.none(), st.floats(0.01, 0.6)),
    }
)


def table(rows: list[dict]) -> pd.DataFrame:
    made = []
    for number, row in enumerate(rows):
        processes = row["pair_processes"] or 1
        samples = row["samples_ms"] * processes  # as many in each
        times = {"median_ms": float(np.median(samples)), "samples_ms": samples}
        made.append({"key": f"{number} {samples}", **row, **times})
    return pd.DataFrame(made).astype({"pair_processes": float, "pair_noise": float})


def sampled(samples: np.ndarray, processes: int = 1, noise: float | None = None) -> pd.DataFrame:
    rows = [{"pair_processes": processes, "pair_noise": noise} for _ in samples]
    columns = {"samples_ms": samples.tolist(), "median_ms": np.median(samples, axis=1)}
    key = [f"{id(samples)} {number}" for number in range(len(samples))]
    return pd.DataFrame(rows).assign(**columns, key=key).astype({"pair_noise": float})


@given(st.lists(st.tuples(records, records), min_size=1, max_size=4))
def test_exchanging_the_sides_inverts_the_ratio(pairs):
    base, new = (table([pair[side] for pair in pairs]) for side in (0, 1))
    new["key"] = "new " + new["key"]
    there, back = unpaired.compare(base, new), unpaired.compare(new, base)
    assert there["ratio"].to_numpy() == pytest.approx(1 / back["ratio"].to_numpy(), rel=1e-12)
    known = there["low"] > 0
    assert (known == np.isfinite(there["high"])).all()
    for name, mirror in (("low", "high"), ("high", "low")):
        product = (there[name] * back[mirror])[known]
        assert product.to_numpy() == pytest.approx(1, rel=1e-9)
    assert (there["low"] <= there["ratio"]).all()
    assert (there["ratio"] <= there["high"]).all()
    # at a border the last digit may decide
    borders = there[["low", "high"]].apply(np.log).abs().stack()
    if not any(np.isclose(borders, np.log1p(x), rtol=1e-9).any() for x in (0.05, unpaired.DRIFT)):
        assert (there["verdict"] == back["verdict"].replace(MIRRORED)).all()


@given(st.lists(records, min_size=1, max_size=4))
def test_a_record_is_the_same_as_itself(rows):
    found = unpaired.compare(table(rows), table(rows))
    assert set(found["verdict"]) == {"SAME"}
    assert (found[["ratio", "low", "high"]] == 1).all(axis=None)


@pytest.mark.parametrize("tail", [1.0, 3.0])
@pytest.mark.parametrize("counts", [(4, 4), (5, 50), (10, 10), (50, 50)])
def test_the_interval_holds_the_truth(counts, tail):
    """Of log-normal times, and of times with a tail that is three times as long."""
    rng = np.random.default_rng(0)
    logs = [rng.normal(size=(2000, count)) * 0.05 for count in counts]
    logs = [np.where(log > 0, tail * log, log) for log in logs]
    found = unpaired.compare(sampled(np.exp(logs[0])), sampled(1.3 * np.exp(logs[1])))
    held = (found["low"] <= 1.3) & (found["high"] >= 1.3)
    assert held.mean() >= 0.94


def test_what_a_process_has_in_common_does_not_average_out():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(2, 1000, 5, 1)) * 0.1
    samples = np.exp(shared + rng.normal(size=(2, 1000, 5, 20)) * 0.01).reshape(2, 1000, 100)
    for processes, least, most in ((5, 0.94, 1.0), (1, 0.0, 0.8)):
        found = unpaired.compare(*(sampled(side, processes) for side in samples))
        held = ((found["low"] <= 1) & (found["high"] >= 1)).mean()
        assert least <= held <= most


def test_the_thresholds_of_both_runs_widen_the_interval():
    samples = np.random.default_rng(0).lognormal(sigma=0.1, size=(2, 1, 20))
    plain = unpaired.compare(*map(sampled, samples))
    noisy = unpaired.compare(sampled(samples[0], 1, 0.2), sampled(samples[1], 1, 0.1))
    widths = [np.log(found["high"] / found["ratio"]).item() for found in (plain, noisy)]
    assert widths[1] ** 2 == pytest.approx(
        widths[0] ** 2 + np.log(1.2) ** 2 + np.log(1.1) ** 2, rel=1e-12
    )


def test_one_sample_tells_no_interval():
    found = unpaired.compare(sampled(np.ones((1, 1))), sampled(np.full((1, 50), 2.0))).iloc[0]
    assert (found["ratio"], found["low"], found["high"]) == (2, 0, np.inf)
    assert found["verdict"] == "UNRESOLVED"


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(1.2, "SLOWER"), (1.09, "UNRESOLVED"), (1.0, "SAME"), (0.95, "UNRESOLVED"), (0.5, "FASTER")],
)
def test_nothing_is_claimed_that_sessions_differ_by_anyway(ratio, verdict):
    samples = np.random.default_rng(0).lognormal(sigma=0.01, size=(2, 1, 50))
    found = unpaired.compare(sampled(samples[0]), sampled(ratio * samples[1]))
    assert found["verdict"].item() == verdict
