"""Noise of log ratios: what is known of one comparison, and what a run adds to it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lossbench.bench.comparing.moderation import APART, STRANGE, USUAL, Noise, Pairs, learn
from lossbench.bench.comparing.ratios import Ratio
from lossbench.bench.comparing.robust import TRIMMED


def sampled(generator, sittings, rounds, own=0.03, sitting=0.007, stalls=0.0):
    """Times of a call that would take 1 ms; a stall takes 9 ms more."""
    logs = generator.normal(0, sitting, (sittings, 1)) + generator.normal(
        0, own, (sittings, rounds)
    )
    return np.exp(logs) + 9 * (generator.random(logs.shape) < stalls)


ONES = [[1.0] * 40] * 8
"""A call that always takes 1 ms: ratios to it are times."""


def alone(comparisons, controls=()):
    """What a group shows that is the only one of its run."""
    (noise,) = learn([(list(comparisons), list(controls))])
    return noise


logs = st.floats(-0.5, 0.5)


@given(st.lists(logs, min_size=2, max_size=40))
def test_one_sitting_has_the_trimmed_mean_and_variance_of_yuen(values):
    found = Pairs.of([np.exp(values).tolist()], ONES)
    cut = int(TRIMMED * len(values))
    kept = len(values) - 2 * cut
    assert found.mean == pytest.approx(stats.trim_mean(values, TRIMMED), abs=1e-12)
    clipped = np.asarray(stats.mstats.winsorize(np.array(values), (TRIMMED, TRIMMED)))
    variance = (len(values) - 1) * clipped.var(ddof=1) / (kept * (kept - 1))
    assert found.within / found.rounds == pytest.approx(variance, rel=1e-6, abs=1e-10)
    assert found.within_freedom == pytest.approx(kept - 1)
    assert found.between_freedom == 0


@given(st.lists(st.tuples(logs, logs), min_size=2, max_size=2))
def test_several_sittings_have_the_mean_squares_of_analysis_of_variance(values):
    found = Pairs.of(np.exp(values).tolist(), ONES)
    means = np.mean(values, axis=1)
    within = ((np.array(values) - means[:, None]) ** 2).sum() / 2
    assert found.within == pytest.approx(within, rel=1e-6, abs=1e-9)
    assert found.between == pytest.approx(2 * means.var(ddof=1), rel=1e-6, abs=1e-9)
    assert (found.within_freedom, found.between_freedom) == (2, 1)


@given(st.lists(st.lists(logs, min_size=4, max_size=4), min_size=1, max_size=5))
def test_exchanging_the_two_turns_the_mean_round_and_changes_no_noise(values):
    times = np.exp(values).tolist()
    there, back = Pairs.of(times, ONES), Pairs.of(ONES, times)
    assert back.mean == pytest.approx(-there.mean, abs=1e-12)
    assert back.within == pytest.approx(there.within, rel=1e-9)
    assert back.between == pytest.approx(there.between, rel=1e-9)


def test_one_bad_round_of_five_moves_nothing():
    quiet = [1.0, 1.01, 0.99, 1.0, 1.0]
    found = Pairs.of([quiet], ONES)
    for place in range(5):
        stalled = [*quiet[:place], 40.0, *quiet[place + 1 :]]
        bad = Pairs.of([stalled], ONES)
        assert abs(bad.mean - found.mean) < 0.01
        assert bad.within < 0.02**2


def test_only_sittings_and_rounds_of_both_count():
    many, few = [[2.0, 2.0, 9.0], [2.0, 2.0, 9.0], [7.0, 7.0, 7.0]], [[1.0, 1.0]] * 2
    assert Pairs.of(many, few) == Pairs.of([[2.0, 2.0]] * 2, few)


@pytest.mark.parametrize("scale", [0.003, 0.02, 0.2])
def test_a_run_tells_how_noisy_its_rounds_are(scale):
    generator = np.random.default_rng(0)
    pairs = [Pairs.of(sampled(generator, 1, 4, own=scale, sitting=0), ONES) for _ in range(120)]
    found = alone(pairs)
    assert found.scale == pytest.approx(scale, rel=0.2)
    assert found.freedom > 10  # all are alike: what one shows holds for the others


def test_comparisons_that_differ_in_noise_tell_little_of_each_other():
    generator = np.random.default_rng(0)
    scales = np.exp(generator.normal(np.log(0.03), 1.0, 60))
    pairs = [Pairs.of(sampled(generator, 1, 8, own=s, sitting=0), ONES) for s in scales]
    assert alone(pairs).freedom < 3


def test_a_run_tells_how_sittings_differ_by_comparisons_and_by_controls():
    generator = np.random.default_rng(0)
    several = [Pairs.of(sampled(generator, 5, 4, sitting=0.05), ONES) for _ in range(40)]
    controls = [Pairs.of(sampled(generator, 1, 20, sitting=0.05), ONES) for _ in range(40)]
    assert alone(several).placement == pytest.approx(0.05, rel=0.25)
    assert alone((), controls).placement == pytest.approx(0.05, rel=0.25)
    # of calls that may differ, the mean of one sitting says nothing
    assert alone(controls).placement == pytest.approx(alone(()).placement)


def test_before_anything_is_known_noise_is_about_usual():
    assert USUAL / 3 < alone(()).scale < 3 * USUAL
    assert learn([]) == []


def groups_of(generator, scales, size):
    """Groups whose rounds are as noisy as these, each of so many comparisons."""
    return [
        ([Pairs.of(sampled(generator, 1, 4, own=s, sitting=0), ONES) for _ in range(size)], [])
        for s in scales
    ]


def test_groups_are_as_noisy_as_their_own_comparisons_show():
    quiet, noisy = learn(groups_of(np.random.default_rng(0), (0.01, 0.1), 60))
    assert quiet.scale == pytest.approx(0.01, rel=0.25)
    assert noisy.scale == pytest.approx(0.1, rel=0.25)
    # how calls differ by where they lie is the machine's
    assert quiet.placement == noisy.placement


def test_a_group_that_shows_nothing_itself_is_taken_to_be_like_the_others():
    once = ([Pairs.of([[1.0]], ONES)], [])  # one round
    quiet, noisy = (
        learn([*groups_of(np.random.default_rng(0), [scale] * 5, 10), once])[-1].scale
        for scale in (0.01, 0.1)
    )
    assert 0.01 < quiet < 0.02  # wider, as groups may differ
    assert noisy == pytest.approx(10 * quiet, rel=0.2)


@given(st.floats(0.05, 2.0), st.integers(2, 20), st.floats(0.001, 0.1))
def test_a_control_that_is_strange_is_no_more_than_that_in_its_group(off, rounds, own):
    """Whatever its rounds are like, and however sure the others make it."""
    times = np.exp(np.random.default_rng(0).normal(off, own, (1, rounds))).tolist()
    control = Pairs.of(times, ONES)
    quiet = [(Pairs.of([[1.0, float(np.exp(own))]], ONES), Pairs.of([[1.0, 1.001]], ONES))] * 9
    (noise, *_) = learn([([], [control]), *(([a], [b]) for a, b in quiet)])
    error, freedom = noise.error(control)
    strange = stats.t.ppf((1 + STRANGE) / 2, freedom) * error
    assert abs(control.mean) <= strange * (1 + 1e-6)
    assert Ratio.of(control.mean, error, freedom, looks=1).verdict not in ("FASTER", "SLOWER")


@pytest.mark.parametrize("off", [0.1, 0.3, 1.0])
def test_nothing_is_claimed_that_differs_no_more_than_a_call_of_its_group_from_itself(off):
    generator = np.random.default_rng(0)
    quiet = [Pairs.of(sampled(generator, 5, 4, own=0.01), ONES) for _ in range(12)]
    control = replace(quiet[0], mean=off)
    run = learn([(quiet[1:], [control]), (quiet[1:], [quiet[0]])])
    said = [Ratio.of(off, *noise.error(quiet[1]), looks=1).verdict for noise in run]
    assert said == ["UNRESOLVED", "SLOWER"]


@given(st.permutations(range(4)))
def test_the_order_of_groups_changes_nothing(order):
    groups = groups_of(np.random.default_rng(0), (0.01, 0.03, 0.03, 0.2), 3)
    found, turned = learn(groups), learn([groups[i] for i in order])
    for place, i in enumerate(order):
        assert turned[place].scale == pytest.approx(found[i].scale)
        assert turned[place].placement == pytest.approx(found[i].placement)


def test_noise_that_is_known_for_sure_is_that_of_every_comparison():
    sure = Noise(scale=0.02, freedom=1e9, placement=0.0, placement_freedom=1e9)
    generator = np.random.default_rng(0)
    for sittings, rounds in ((1, 4), (4, 4)):
        pairs = Pairs.of(sampled(generator, sittings, rounds, own=0.02, sitting=0), ONES)
        error, freedom = sure.error(pairs)
        assert error == pytest.approx(0.02 / np.sqrt(sittings * rounds), rel=1e-3)
        assert freedom > 1e6


def test_noise_that_nothing_is_known_of_leaves_a_comparison_to_itself():
    unknown = Noise(scale=0.02, freedom=1e-9, placement=0.0, placement_freedom=1e-9)
    pairs = Pairs.of([[1.0, 1.1, 0.9, 1.2]], ONES)
    error, freedom = Noise(0.02, 1e-9, 0.0, 1.0).error(pairs)
    assert error == pytest.approx(stats.sem(np.log([1.0, 1.1, 0.9, 1.2])), rel=1e-3)
    assert freedom == pytest.approx(3, rel=1e-3)
    several = Pairs.of([[1.0, 1.1], [0.9, 1.3]], ONES)
    error, freedom = unknown.error(several)
    means = np.log([[1.0, 1.1], [0.9, 1.3]]).mean(axis=1)
    assert error == pytest.approx(stats.sem(means), rel=1e-3)
    assert freedom == pytest.approx(1, rel=1e-3)


def test_a_comparison_that_is_strange_is_hardly_drawn_towards_the_others():
    noise = Noise(scale=0.02, freedom=50.0, placement=0.0, placement_freedom=50.0)
    stalled = Pairs.of([[1.0, 9.0]], ONES)  # a stall in one of two rounds
    error, freedom = noise.error(stalled)
    assert freedom < 2.5
    assert error > 0.6 * np.sqrt(stalled.within / stalled.rounds)
    assert Ratio.of(stalled.mean, error, freedom).verdict == "UNRESOLVED"


@given(st.floats(0.0, 3.0), st.floats(1.0, 60.0))
def test_no_stall_in_one_of_two_rounds_is_claimed_however_long(stall, freedom):
    noise = Noise(scale=0.02, freedom=freedom, placement=0.0, placement_freedom=4.0)
    stalled = Pairs.of([[1.0, float(np.exp(stall))]], ONES)
    assert Ratio.of(stalled.mean, *noise.error(stalled), looks=1).verdict in ("SAME", "UNRESOLVED")


@given(st.floats(0.01, 3.0), st.floats(0.01, 3.0), st.floats(1.0, 60.0))
def test_the_noisier_a_comparison_the_fewer_its_degrees_of_freedom(one, other, freedom):
    noise = Noise(scale=0.02, freedom=freedom, placement=0.0, placement_freedom=4.0)
    (less, many), (more, few) = (
        noise.error(Pairs.of([[1.0, float(np.exp(each))]], ONES)) for each in sorted((one, other))
    )
    assert few <= many * (1 + 1e-6)
    assert less <= more * (1 + 1e-6)


@pytest.mark.long
@pytest.mark.parametrize("stalls", [0.0, 0.01])
@pytest.mark.parametrize(
    ("sittings", "rounds"), [(1, 2), (1, 4), (1, 8), (1, 20), (2, 2), (5, 2), (5, 4)]
)
def test_intervals_hold_the_truth_as_often_as_they_say_and_claims_are_right(
    sittings, rounds, stalls
):
    """Runs of four groups of five calls and a control; noise differs by the group and the call."""
    generator = np.random.default_rng(1)
    held = claims = total = 0
    for _ in range(100):
        groups = []
        for _ in range(4):
            own = np.exp(generator.normal(np.log(0.03), APART) + generator.normal(0, 0.4, 6))
            calls = [sampled(generator, sittings, rounds, own=o, stalls=stalls) for o in own]
            pairs = [Pairs.of(call, calls[0]) for call in calls[1:-1]]
            groups.append((pairs, [Pairs.of(calls[-1], calls[0])]))
        for (pairs, _), noise in zip(groups, learn(groups), strict=True):
            for each in pairs:
                found = Ratio.of(each.mean, *noise.error(each), looks=1)
                held += found.low <= 1 <= found.high
                claims += found.verdict in ("FASTER", "SLOWER")
                total += 1
    assert held >= 0.94 * total
    assert claims <= total / 200


@pytest.mark.parametrize(("sittings", "rounds", "growth"), [(1, 4, 3), (2, 4, 2), (3, 2, 4)])
def test_what_more_rounds_would_show_is_what_as_many_alike_do(sittings, rounds, growth):
    """One sitting gets longer; of several there are more."""
    times = sampled(np.random.default_rng(0), sittings, rounds).tolist()
    few = Pairs.of(times, ONES)
    longer = [times[0] * growth] if sittings == 1 else times * growth
    many = Pairs.of(longer, [[1.0] * 40] * 40)
    found = few.grown(growth)
    assert found.rounds == many.rounds
    assert found.within_freedom == pytest.approx(many.within_freedom, rel=0.35)
    assert found.between_freedom == pytest.approx(many.between_freedom, rel=0.35)
    assert few.grown(1.0) == few
