"""Paired timing: what is claimed of synthetic samples, and in which order calls are visited."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from lossbench.bench.comparing.moderation import Noise, Pairs, learn
from lossbench.bench.comparing.ratios import (
    LEAST,
    LOOKS,
    Ratio,
    claimed,
    is_open,
    noises_of,
    ratio,
    ratio_of,
)
from lossbench.bench.measuring.disturbance import Stretch
from lossbench.bench.measuring.interleave import VISIT_CALLS, interleave
from lossbench.bench.measuring.timing import VISIT_MS

PROCESSES, ROUNDS = 5, 4
COMPARISONS = 200
CLAIMS = ("FASTER", "SLOWER")


def sample(generator, factors):
    """Samples of calls that share the rounds of the same processes.

    A process has an offset for each call (where its memory lies, 1%), a round a spell that hits all
    calls alike (20%), and each sample noise of its own (4%).
    """
    calls = len(factors)
    offset = generator.normal(0, 0.01, (calls, PROCESSES, 1))
    spell = generator.normal(0, 0.20, (1, PROCESSES, ROUNDS))
    own = generator.normal(0, 0.04, (calls, PROCESSES, ROUNDS))
    times = np.exp(offset + spell + own) * np.reshape(factors, (calls, 1, 1))
    return [call.tolist() for call in times]


def verdicts(slowdown=1.0, groups=10):
    """What is said of calls after the sitting that settles each, in runs of several groups."""
    generator = np.random.default_rng(0)
    said = [""] * COMPARISONS
    for start in range(0, COMPARISONS, groups):
        run = [sample(generator, (slowdown, 1.0, 1.0)) for _ in range(groups)]
        open_ = set(range(groups))
        for look in range(LEAST, PROCESSES + 1):
            seen = [[call[:look] for call in group] for group in run]
            noises = learn([([Pairs.of(a, b)], [Pairs.of(c, b)]) for a, b, c in seen])
            for place in sorted(open_):
                pair, looks, noise = seen[place][:2], PROCESSES - LEAST + 1, noises[place]
                said[start + place] = ratio(*pair, noise, looks).verdict
                if not is_open(*pair, looks, noise, noise, PROCESSES / look):
                    open_.remove(place)
    return said


def test_nothing_is_claimed_of_a_call_and_itself_however_often_it_is_looked_at():
    assert sum(verdict in CLAIMS for verdict in verdicts()) <= COMPARISONS // 200


def test_fifteen_per_cent_slower_is_found():
    said = verdicts(slowdown=1.15)
    assert said.count("SLOWER") >= 0.95 * COMPARISONS
    assert "FASTER" not in said


def test_the_value_is_the_ratio_of_what_was_put_in():
    generator = np.random.default_rng(0)
    contender, baseline = sample(generator, (3.0, 2.0))
    found = ratio(contender, baseline, Noise())
    assert found.value == pytest.approx(1.5, rel=0.05)
    assert found.least < found.low < found.value < found.high < found.most


@pytest.mark.parametrize("slowdown", [0.7, 1.0, 1.02, 1.3])
def test_swapping_the_two_inverts_ratio_and_verdict(slowdown):
    contender, baseline = sample(np.random.default_rng(1), (slowdown, 1.0))
    there, back = ratio(contender, baseline, Noise()), ratio(baseline, contender, Noise())
    assert back.value == pytest.approx(1 / there.value)
    assert (back.low, back.high) == pytest.approx((1 / there.high, 1 / there.low))
    opposite = {"FASTER": "SLOWER", "SLOWER": "FASTER"}
    assert back.verdict == opposite.get(there.verdict, there.verdict)


def test_a_machine_of_another_speed_changes_nothing():
    contender, baseline = sample(np.random.default_rng(2), (1.1, 1.0))
    twice = [[[2 * ms for ms in process] for process in call] for call in (contender, baseline)]
    assert ratio(*twice, Noise()) == ratio(contender, baseline, Noise())


@pytest.mark.parametrize(
    ("shown", "claimed", "verdict"),
    [
        ((0.97, 1.03), (0.95, 1.05), "SAME"),
        ((1.005, 1.049), (0.99, 1.06), "SAME"),
        ((0.97, 1.06), (0.95, 1.09), "UNRESOLVED"),
        ((1.02, 1.03), (1.011, 1.04), "SLOWER"),
        ((1.02, 1.09), (1.005, 1.1), "UNRESOLVED"),
        ((0.5, 2.0), (0.4, 3.0), "UNRESOLVED"),
        ((0.5, 0.9), (0.4, 0.98), "FASTER"),
        ((0.5, 0.92), (0.4, 0.995), "UNRESOLVED"),
    ],
)
def test_verdicts(shown, claimed, verdict):
    assert Ratio((shown[0] * shown[1]) ** 0.5, *shown, *claimed).verdict == verdict


@pytest.mark.parametrize("looks", range(1, LOOKS + 1))
def test_claims_of_all_looks_together_are_wrong_once_in_200(looks):
    assert looks * (1 - claimed(looks)) == pytest.approx(1 / 200)


@pytest.mark.parametrize("rounds", [1, 2])
def test_what_is_looked_at_once_by_few_rounds_is_claimed_wrongly_once_in_200_at_most(rounds):
    """In runs of ten groups, of one process each, whose other calls are visited twice."""
    generator, said = np.random.default_rng(4), []
    for _ in range(200):
        groups = [sample(generator, (1.0, 1.0, 1.0)) for _ in range(10)]
        run = [[[call[0][:2]] for call in group] for group in groups]
        noises = learn([([Pairs.of(a, b)], [Pairs.of(c, b)]) for a, b, c in run])
        for (a, b, _), noise in zip(run, noises, strict=True):
            said.append(ratio([a[0][:rounds]], b, noise, looks=1).verdict)
    assert sum(verdict in CLAIMS for verdict in said) <= len(said) / 200


def test_two_records_have_as_many_looks_as_the_one_with_fewer():
    """What says nothing of it had as many as there can be."""
    generator = np.random.default_rng(5)
    contender, baseline = sample(generator, (1.1, 1.0))
    one, two, old = (
        {"pair_processes": PROCESSES, "samples_ms": np.ravel(contender).tolist(), "pair_looks": n}
        for n in (1, 2, float("nan"))
    )
    base = {"pair_processes": PROCESSES, "samples_ms": np.ravel(baseline).tolist()}
    for record, other, looks in ((one, two, 1), (two, base, 2), (old, base, LOOKS)):
        other = other | {"samples_ms": base["samples_ms"]}
        expected = ratio(contender, baseline, Noise(), looks)
        assert ratio_of(record, other, Noise()) == expected


SURE = Noise(scale=0.02, freedom=1e9, placement=1e-6, placement_freedom=1e9)


def test_a_verdict_is_open_if_enough_rounds_fit_to_settle_it():
    """Rounds differ by 2%, as is known for sure."""
    alike, between = [[1.0, 1.0]], [[1.04, 1.04]]  # neither within 5% nor beyond 1%
    assert ratio(between, alike, SURE).verdict == "UNRESOLVED"
    assert is_open(between, alike, LOOKS, SURE, SURE, 10.0)
    # what rounds do not show is not settled by any number of them
    placed, controlled = replace(SURE, placement=0.2), replace(SURE, control=0.2)
    assert not is_open(between, alike, LOOKS, placed, placed, 1e6)
    assert not is_open(between, alike, LOOKS, controlled, controlled, 1e6)
    # but that a control differs from itself may have been chance
    assert is_open(between, alike, LOOKS, controlled, SURE, 10.0)
    for settled in ([[1.2, 1.2]], [[0.8, 0.8]], alike):
        assert not is_open(settled, alike, LOOKS, replace(SURE, scale=0.01), SURE, 10.0)


def test_quiet_and_noisy_samples_reach_same_and_unresolved():
    generator = np.random.default_rng(3)
    quiet, loud = (
        [np.exp(generator.normal(0, sd, (PROCESSES, ROUNDS))).tolist() for _ in "ab"]
        for sd in (0.005, 1.0)
    )
    assert ratio(*quiet, Noise()).verdict == "SAME"
    assert ratio(*loud, Noise()).verdict == "UNRESOLVED"


def test_what_a_process_has_in_common_widens_the_interval():
    generator = np.random.default_rng(4)
    baseline = np.ones((PROCESSES, ROUNDS)).tolist()
    alike = np.exp(generator.normal(0, 0.01, (PROCESSES, ROUNDS)))
    offset = alike * np.exp(np.linspace(-0.1, 0.1, PROCESSES))[:, None]
    narrow, wide = (ratio(x.tolist(), baseline, Noise()) for x in (alike, offset))
    assert wide.value == pytest.approx(narrow.value, rel=0.01)
    assert np.log(wide.high / wide.low) > 2.5 * np.log(narrow.high / narrow.low)
    # about the interval of Student's t of the processes' means, which are all that is known
    processes = stats.t.interval(0.95, PROCESSES - 1, 0, stats.sem(np.log(offset).mean(axis=1)))
    assert np.log([wide.low, wide.high]) == pytest.approx(processes, rel=0.1)


def record(group, samples, control=None, processes=PROCESSES):
    flat = np.ravel(samples).tolist()
    kept = {} if control is None else {"control_ms": np.ravel(control).tolist()}
    return {"pair_group": group, "pair_processes": processes, "samples_ms": flat, **kept}


def test_the_noise_of_records_is_that_of_their_groups():
    generator = np.random.default_rng(7)
    first, second = sample(generator, (1.0, 2.0, 1.0)), sample(generator, (5.0, 3.0, 5.0))
    records = [
        *(record("a", first[0], first[2]), record("a", first[1])),
        *(record("b", second[1]), record("b", second[0], second[2])),
        {"samples_ms": [1.0]},  # not timed in turn
    ]
    expected = learn(
        [
            ([Pairs.of(first[1], first[0])], [Pairs.of(first[2], first[0])]),
            ([Pairs.of(second[1], second[0])], [Pairs.of(second[2], second[0])]),
        ]
    )
    assert noises_of(records) == dict(zip("ab", expected, strict=True))


class CalmWatch:
    """Of a machine that does nothing else."""

    def stop(self):
        return Stretch(wall_s=1.0, cpu_s=1.0, waited_s=0.0, switches=0)


@pytest.fixture
def log(monkeypatch):
    """Names of the calls in the order in which a timer ran them; each call is its milliseconds."""
    names = []

    def make_timer(device):
        assert device == "cpu"

        def timer(call):
            names.append(call.__name__)
            elapsed = call()
            return elapsed, (torch.tensor(elapsed),)

        return timer

    monkeypatch.setattr("lossbench.bench.measuring.interleave.make_timer", make_timer)
    monkeypatch.setattr("lossbench.bench.measuring.interleave.Watch", CalmWatch)
    return names


def make_call(name, *milliseconds):
    """A call that takes these times in turn, the last one from then on."""
    left = list(milliseconds)

    def call():
        return left.pop(0) if len(left) > 1 else left[0]

    call.__name__ = name
    return call


@pytest.fixture
def look(log):
    """What is looked at is written into the log in small letters."""
    return lambda place, output: log.append(f"{'abc'[place]}{output[0].item():.0f}")


def test_calls_are_visited_to_and_fro_and_their_last_output_looked_at_at_once(log, look):
    calls = [make_call("A", 100.0), make_call("B", 200.0), make_call("C", 300.0)]
    found = interleave(calls, [4, 4, 4], "cpu", look)
    assert "".join(log) == "ABCCBAABC" + "Cc300Bb200Aa100"
    assert found.samples == [[100.0] * 4, [200.0] * 4, [300.0] * 4]


def test_calls_with_fewer_rounds_are_in_the_first(log, look):
    calls = [make_call("A", 100.0), make_call("B", 200.0), make_call("C", 300.0)]
    found = interleave(calls, [4, 2, 4], "cpu", look)
    assert "".join(log) == "ABCCBb200A" + "ACCc300Aa100"
    assert found.samples == [[100.0] * 4, [200.0] * 2, [300.0] * 4]


def test_a_sample_is_the_median_of_a_visit(log):
    usual = VISIT_MS / 4
    found = interleave([make_call("A", usual, 900.0, 900.0, usual)], [2], "cpu")
    assert found.samples == [[usual, usual]]
    assert len(log) == 2 * (1 + 4)


def test_a_visit_of_the_shortest_calls_ends(log):
    interleave([make_call("A", 1e-6)], [2], "cpu")
    assert len(log) == 2 * (1 + VISIT_CALLS)
