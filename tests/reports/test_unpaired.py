"""Intervals of ratios between sessions: they hold the truth as often as they say."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lossbench.reports import unpaired

MIRRORED = {"FASTER": "SLOWER", "SLOWER": "FASTER"}
times = st.floats(0.001, 1e6)
records = st.fixed_dictionaries(
    {
        "samples_ms": st.lists(times, min_size=1, max_size=12),
        "pair_processes": st.sampled_from([None, 1, 2, 3]),
        "moments": st.none(),
    }
) | st.fixed_dictionaries(
    {
        "samples_ms": st.lists(times, min_size=1, max_size=12),
        "pair_processes": st.none(),
        "moments": st.sampled_from([1, 2, 3]),
    }
)


def table(rows: list[dict]) -> pd.DataFrame:
    made = []
    for number, row in enumerate(rows):
        samples = row["samples_ms"] * (row["pair_processes"] or row["moments"] or 1)  # in each
        times = {"median_ms": float(np.median(samples)), "samples_ms": samples}
        made.append({"key": f"{number} {samples}", **row, **times})
    return pd.DataFrame(made).astype({"pair_processes": float, "moments": float})


def sampled(samples: np.ndarray, processes: int | None = 1, moments: int | None = None):
    rows = [{"pair_processes": processes, "moments": moments} for _ in samples]
    columns = {"samples_ms": samples.tolist(), "median_ms": np.median(samples, axis=1)}
    key = [f"{id(samples)} {number}" for number in range(len(samples))]
    return pd.DataFrame(rows).assign(**columns, key=key)


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
    opposite = back["verdict"].replace(MIRRORED)
    close = np.isclose(there["ratio"].apply(np.log).abs(), 0, atol=1e-12)
    assert ((there["verdict"] == opposite) | close).all()


@given(st.lists(records, min_size=1, max_size=4))
def test_a_record_is_the_same_as_itself(rows):
    found = unpaired.compare(table(rows), table(rows))
    assert set(found["verdict"]) == {"SAME"}
    assert (found[["ratio", "low", "high"]] == 1).all(axis=None)


@pytest.mark.parametrize("tail", [1.0, 3.0])
@pytest.mark.parametrize("counts", [(4, 4), (5, 50), (10, 10), (50, 50)])
def test_the_sampling_error_is_that_of_medians(counts, tail):
    """Of log-normal times, and of times with a tail that is three times as long."""
    rng = np.random.default_rng(0)
    logs = [rng.normal(size=(2000, count)) * 0.05 for count in counts]
    logs = [np.where(log > 0, tail * log, log) for log in logs]
    base, new = sampled(np.exp(logs[0])), sampled(1.3 * np.exp(logs[1]))
    error, freedom = unpaired._error(base, new)
    z = np.log(new["median_ms"] / base["median_ms"] / 1.3) / error
    assert (np.abs(z) <= stats.t(freedom).ppf(0.975)).mean() >= 0.94


def sessions(rng, cases, drift, own=0.02):
    """Two sessions of the same code, that drift as a whole and each case by itself."""
    shared = rng.normal(0, drift / 2, (2, 1, 1)) + rng.normal(0, drift / 2, (2, cases, 1))
    return np.exp(shared + rng.normal(0, own, (2, cases, 20)))


@pytest.mark.parametrize("drift", [0.02, 0.09, 0.5, 1.5])
def test_of_the_same_code_nothing_is_claimed_however_far_sessions_drift(drift):
    rng = np.random.default_rng(0)
    claims = compared = 0
    for _ in range(100):
        found = unpaired.compare(*map(sampled, sessions(rng, 24, drift)))
        claims += found["verdict"].isin(MIRRORED).sum()
        compared += len(found)
    assert claims <= compared / 200


def test_a_change_of_few_cases_is_claimed_where_the_others_agree():
    base, new = sessions(np.random.default_rng(0), 24, 0.05)
    new[:4] *= 1.6
    verdicts = unpaired.compare(sampled(base), sampled(new))["verdict"]
    assert set(verdicts[:4]) == {"SLOWER"}
    assert not verdicts[4:].isin(MIRRORED).any()


def test_sessions_that_agree_narrow_each_others_intervals():
    base, new = sessions(np.random.default_rng(0), 24, 0.0)
    together = unpaired.compare(sampled(base), sampled(new)).iloc[0]
    alone = unpaired.compare(sampled(base[:1]), sampled(new[:1])).iloc[0]
    assert 1 < alone["high"] / alone["low"] < 1.6
    assert together["high"] / together["low"] < 0.7 * alone["high"] / alone["low"] + 0.3


def test_one_sample_tells_no_interval():
    found = unpaired.compare(sampled(np.ones((1, 1))), sampled(np.full((1, 50), 2.0))).iloc[0]
    assert (found["ratio"], found["low"], found["high"]) == (2, 0, np.inf)
    assert found["verdict"] == "UNRESOLVED"


@pytest.mark.parametrize(
    ("ratio", "moments", "verdict"),
    [
        *((2.0, 3, "SLOWER"), (1.6, 3, "UNRESOLVED"), (1.0, 3, "UNRESOLVED"), (0.5, 3, "FASTER")),
        *((2.0, 1, "UNRESOLVED"), (4.0, 1, "SLOWER"), (0.25, None, "FASTER")),
    ],
)
def test_nothing_is_claimed_that_sessions_differ_by_anyway(ratio, moments, verdict):
    """At one moment, where all samples may be of a busy second, they differ by more."""
    samples = np.random.default_rng(0).lognormal(sigma=0.01, size=(2, 1, 48))
    sides = (sampled(each, None, moments) for each in (samples[0], ratio * samples[1]))
    assert unpaired.compare(*sides)["verdict"].item() == verdict


def test_what_the_samples_of_a_moment_have_in_common_does_not_cancel():
    """Moments differ by a fifth, samples of one by next to nothing."""
    rng = np.random.default_rng(0)
    logs = rng.normal(0, 0.2, (2, 200, 3, 1)) + rng.normal(0, 1e-3, (2, 200, 3, 16))
    base, new = (sampled(np.exp(each.reshape(200, 48)), None, 3) for each in logs)
    error, freedom = unpaired._error(base, new)
    assert (freedom <= 4).all()
    z = np.log(new["median_ms"] / base["median_ms"]) / error
    assert (np.abs(z) <= stats.t(freedom).ppf(0.975)).mean() >= 0.94


@pytest.mark.parametrize("moments", [1, 3])
def test_a_busy_second_is_no_claim(moments):
    """Of 1 visit in 25 all samples take 1.3 to 2 times as long."""
    rng = np.random.default_rng(0)
    claims = compared = 0
    for _ in range(100):
        hit = rng.random((2, 24, moments, 1)) < 0.04
        slow = np.where(hit, rng.uniform(1.3, 2, hit.shape), 1)
        samples = sessions(rng, 24, 0.05)[..., : 18 // moments * moments]
        samples = (samples.reshape(2, 24, moments, -1) * slow).reshape(2, 24, -1)
        verdicts = unpaired.compare(*(sampled(each, None, moments) for each in samples))["verdict"]
        claims += verdicts.isin(MIRRORED).sum()
        compared += len(verdicts)
    assert claims <= compared / 200
