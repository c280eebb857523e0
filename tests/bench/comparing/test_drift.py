"""Whether all calls became slower: closed forms and invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossbench.bench.comparing.drift import DRIFT, LEAST_ROUNDS, drifted, is_drift

times = st.floats(0.1, 1e4)


def split(samples, processes):
    return [part.tolist() for part in np.split(np.asarray(samples), processes)]


@settings(deadline=None)
@given(times, st.integers(2, 20), st.integers(1, 4), st.floats(0.5, 2.0))
def test_calls_that_slow_down_evenly_do_so_by_the_distance_of_the_thirds(ms, third, calls, rate):
    """Of n rounds, each ``rate`` times the one before, medians of thirds are 2n/3 rounds apart."""
    rounds = 3 * third
    growth = rate ** (1 / rounds)
    samples = [ms * (1 + place) * growth ** np.arange(rounds) for place in range(calls)]
    by_case = [split(each, 3) for each in samples]
    middle = np.median(growth ** np.arange(2 * third, 3 * third)) / np.median(
        growth ** np.arange(third)
    )
    assert drifted(by_case)["drift"] == pytest.approx(middle)
    assert middle == pytest.approx(growth ** (2 * third), rel=0.05)


@settings(deadline=None)
@given(st.lists(st.lists(times, min_size=LEAST_ROUNDS, max_size=LEAST_ROUNDS), min_size=1), times)
def test_it_does_not_depend_on_units_and_is_inverted_when_time_runs_back(calls, unit):
    found = drifted([[samples] for samples in calls])["drift"]
    scaled = drifted([[[unit * ms for ms in samples]] for samples in calls])["drift"]
    assert scaled == pytest.approx(found)
    back = drifted([[samples[::-1]] for samples in calls])["drift"]
    assert back == pytest.approx(1 / found)


def test_one_call_or_one_round_of_many_is_no_drift_of_all():
    calm = [[[1.0] * 12]] * 4
    assert drifted(calm) == {"drift": 1.0}
    slowing = [[np.linspace(1, 9, 12).tolist()]]
    assert drifted([*calm, *slowing]) == {"drift": 1.0}
    assert drifted([[[1.0] * 11 + [50.0]]] * 3) == {"drift": 1.0}


def test_few_rounds_tell_nothing():
    assert drifted([[[1.0] * (LEAST_ROUNDS - 1)]] * 2) == {}
    slow, quick = [[1.0, 9.0]], [[1.0] * LEAST_ROUNDS]
    assert drifted([slow, quick]) == {"drift": 1.0}


def test_a_machine_may_become_slower_or_quicker():
    assert not is_drift(1.0)
    assert not is_drift(1 + DRIFT)
    assert is_drift(1 + 1.01 * DRIFT)
    assert not is_drift(1 / (1 + DRIFT))
    assert is_drift(1 / (1 + 1.01 * DRIFT))
