"""What paired timing claims of samples whose truth is known."""

import numpy as np
import pytest

from lossbench.bench.comparing import trust
from lossbench.bench.comparing.trust import CALLS, SITTINGS, Trust, comparisons, coverage, judge

ROUNDS, EACH, PROCESSES = 4, 10, 5
"""Rounds of a comparison in a process, comparisons that share their processes, and these."""


def sampled(batches=1, noise=0.02, **factors):
    """Records of processes whose calls take a millisecond, but by their factors, and noise."""
    generator = np.random.default_rng(0)

    def record():
        times = np.exp(generator.normal(0, noise, (len(CALLS), EACH * ROUNDS)))
        samples = {
            field: (factors.get(name, 1.0) * each).tolist()
            for (name, field), each in zip(CALLS.items(), times, strict=True)
        }
        return {"noise_rounds": ROUNDS, **samples}

    return [record() for _ in range(batches * PROCESSES)]


def judged(**how):
    return judge(comparisons(sampled(**how), PROCESSES))


def test_a_comparison_has_its_own_rounds_of_each_of_its_processes():
    records = sampled(batches=2)
    found = comparisons(records, PROCESSES)
    assert [len(group) for group in found] == [EACH, EACH]
    second = found[1][1]
    for session, record in zip(second, records[PROCESSES:], strict=True):
        for name, field in CALLS.items():
            assert session[name] == record[field][ROUNDS : 2 * ROUNDS]


def test_processes_that_are_not_all_there_are_left_out():
    assert len(comparisons(sampled(batches=2)[:-1], PROCESSES)) == 1
    assert judge(comparisons(sampled()[:-1], PROCESSES)) == Trust(0, 0, 0)


def test_what_is_the_same_is_not_claimed_and_what_is_slower_is_found():
    assert judged(slowed=1.15) == Trust(EACH, false_claims=0, found=EACH)


@pytest.mark.parametrize("again", [0.8, 1.2])
def test_a_difference_from_itself_is_a_false_claim(again):
    assert judged(again=again).false_claims == EACH


def test_a_slowdown_is_not_found_where_a_call_differs_as_much_from_itself():
    assert judged(control=1.3, slowed=1.15).found == 0
    assert judged(noise=0.5, slowed=1.15).found == 0


def test_of_fewer_processes_nothing_is_drawn_that_needs_more():
    two = comparisons(sampled(), 2)
    assert np.isnan(coverage(two, 20))
    assert np.isnan(coverage([], 2))


@pytest.mark.parametrize("rounds", SITTINGS)
def test_intervals_hold_what_is_true_and_seldom_what_is_not(rounds, monkeypatch):
    monkeypatch.setattr(trust, "DRAWS", 400)
    true = coverage(comparisons(sampled(batches=4), PROCESSES), rounds)
    assert 0.94 <= true <= 1
    assert coverage(comparisons(sampled(batches=4, again=1.5), PROCESSES), rounds) < 0.1
