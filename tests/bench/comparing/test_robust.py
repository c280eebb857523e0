"""The trimmed mean: as scipy has it, blind to stalls, and with an interval that holds the mean."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lossbench.bench.comparing.robust import trimmed_mean

values = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40)


@given(values)
def test_the_mean_is_scipys(some):
    assert trimmed_mean(some).mean == pytest.approx(stats.trim_mean(some, 0.2), abs=1e-9)


@pytest.mark.parametrize("count", [2, 4, 5, 6, 9, 10, 22, 50])
def test_variance_and_freedom_are_those_of_yuens_test(count):
    generator = np.random.default_rng(count)
    one, other = generator.standard_t(2, count), 1 + 3 * generator.standard_t(2, 2 * count)
    first, second = trimmed_mean(one), trimmed_mean(other)
    theirs = stats.ttest_ind(one, other, equal_var=False, trim=0.2)
    together = first.variance + second.variance
    assert (first.mean - second.mean) / math.sqrt(together) == pytest.approx(theirs.statistic)
    welch = first.variance**2 / first.freedom + second.variance**2 / second.freedom
    assert together**2 / welch == pytest.approx(theirs.df)


def test_few_values_are_not_trimmed():
    found = trimmed_mean([1.0, 2.0, 3.0, 10.0])
    assert found.mean == 4
    assert found.variance == pytest.approx(np.var([1, 2, 3, 10], ddof=1) / 4)
    assert found.freedom == 3


def test_one_value_has_no_variance():
    found = trimmed_mean([7.0])
    assert found.mean == 7
    assert math.isnan(found.variance)
    assert found.freedom == 0


def test_no_value_has_no_mean():
    with pytest.raises(ValueError, match="one value or more, got none"):
        trimmed_mean([])


@given(st.permutations(range(20)), st.floats(1, 1e9), st.integers(1, 4))
def test_it_does_not_matter_how_long_a_stall_was_nor_when(order, longer, stalls):
    """Of 20 values up to 4 are left out at the end: those 4 may be anything that is longest."""
    quiet = [float(value) for value in order]
    late = [value + longer * (value >= 20 - stalls) for value in quiet]
    assert trimmed_mean(late) == trimmed_mean(sorted(quiet))


@given(values, st.floats(-10, 10), st.floats(0.1, 10))
def test_it_moves_with_the_unit_and_the_origin(some, origin, unit):
    plain, moved = trimmed_mean(some), trimmed_mean([origin + unit * value for value in some])
    assert moved.mean == pytest.approx(origin + unit * plain.mean, abs=1e-6)
    assert moved.freedom == plain.freedom
    if plain.freedom:
        assert moved.variance == pytest.approx(unit**2 * plain.variance, abs=1e-6)


@pytest.mark.parametrize("count", [6, 12, 22])
def test_students_interval_holds_the_mean_of_noise_with_stalls(count):
    """Of 4,000 samples: 95% give or take 1% (three standard errors), a little more with stalls."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(4000, count))
    half = stats.t.ppf(0.975, count - 2 * (count // 5) - 1)
    for stalled in (0, 1):
        stalls = np.where(np.arange(count) < stalled, 100 * generator.choice([-1, 1], (4000, 1)), 0)
        found = [trimmed_mean(sample) for sample in noise + stalls]
        held = np.mean([abs(each.mean) < half * math.sqrt(each.variance) for each in found])
        assert 0.94 < held < 0.98
