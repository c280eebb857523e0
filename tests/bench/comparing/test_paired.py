"""Paired timing: what is claimed of synthetic samples, and in which order calls are visited."""

import numpy as np
import pytest
import torch

from lossbench.bench.comparing.ratios import FLOOR, Ratio, noise, ratio
from lossbench.bench.measuring.interleave import VISIT_CALLS, interleave
from lossbench.bench.measuring.timing import VISIT_MS

PROCESSES, ROUNDS = 5, 12
COMPARISONS = 200
CLAIMS = ("FASTER", "SLOWER")


def sample(generator, factors):
    """Samples of calls that share the rounds of the same processes.

    A process has an offset for each call (where its memory lies, 1%), a round a spell that hits all
    calls alike (20%), and each sample noise of its own (5%).
    """
    calls = len(factors)
    offset = generator.normal(0, 0.01, (calls, PROCESSES, 1))
    spell = generator.normal(0, 0.20, (1, PROCESSES, ROUNDS))
    own = generator.normal(0, 0.05, (calls, PROCESSES, ROUNDS))
    times = np.exp(offset + spell + own) * np.reshape(factors, (calls, 1, 1))
    return [call.tolist() for call in times]


def compare(seed, slowdown=1.0):
    """Verdict on a call, with the threshold of an A/A comparison that shares no sample with it."""
    generator = np.random.default_rng(seed)
    first, second = sample(generator, (1.0, 1.0))
    contender, baseline = sample(generator, (slowdown, 1.0))
    return ratio(contender, baseline).verdict(noise(first, second))


def test_nothing_is_claimed_of_a_call_and_itself():
    verdicts = [compare(seed) for seed in range(COMPARISONS)]
    assert sum(verdict in CLAIMS for verdict in verdicts) <= COMPARISONS // 100


def test_fifteen_per_cent_slower_is_found():
    verdicts = [compare(seed, slowdown=1.15) for seed in range(COMPARISONS)]
    assert verdicts.count("SLOWER") >= 0.95 * COMPARISONS
    assert "FASTER" not in verdicts


def test_the_value_is_the_ratio_of_what_was_put_in():
    generator = np.random.default_rng(0)
    contender, baseline = sample(generator, (3.0, 2.0))
    found = ratio(contender, baseline)
    assert found.value == pytest.approx(1.5, rel=0.05)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("slowdown", [0.7, 1.0, 1.02, 1.3])
@pytest.mark.parametrize("threshold", [FLOOR, 0.1])
def test_swapping_the_two_inverts_ratio_and_verdict(slowdown, threshold):
    contender, baseline = sample(np.random.default_rng(1), (slowdown, 1.0))
    there, back = ratio(contender, baseline), ratio(baseline, contender)
    assert back.value == pytest.approx(1 / there.value)
    assert (back.low, back.high) == pytest.approx((1 / there.high, 1 / there.low))
    opposite = {"FASTER": "SLOWER", "SLOWER": "FASTER"}
    verdict = there.verdict(threshold)
    assert back.verdict(threshold) == opposite.get(verdict, verdict)


def test_a_machine_of_another_speed_changes_nothing():
    contender, baseline = sample(np.random.default_rng(2), (1.1, 1.0))
    twice = [[[2 * ms for ms in process] for process in call] for call in (contender, baseline)]
    assert ratio(*twice) == ratio(contender, baseline)
    assert noise(*twice) == noise(contender, baseline)


@pytest.mark.parametrize(
    ("low", "high", "threshold", "verdict"),
    [
        (0.97, 1.03, 0.01, "SAME"),
        (1.005, 1.049, 0.01, "SAME"),
        (0.97, 1.06, 0.01, "UNRESOLVED"),
        (0.90, 1.03, 0.01, "UNRESOLVED"),
        (1.02, 1.03, 0.01, "SLOWER"),
        (1.02, 1.03, 0.05, "SAME"),
        (1.02, 1.09, 0.10, "UNRESOLVED"),
        (1.5, 1.7, 0.8, "UNRESOLVED"),
        (0.5, 2.0, 0.10, "UNRESOLVED"),
        (0.5, 0.9, 0.10, "FASTER"),
        (0.5, 0.92, 0.10, "UNRESOLVED"),
    ],
)
def test_verdicts(low, high, threshold, verdict):
    assert Ratio((low * high) ** 0.5, low, high).verdict(threshold) == verdict


def test_quiet_and_noisy_samples_reach_same_and_unresolved():
    generator = np.random.default_rng(3)
    quiet, loud = (
        [np.exp(generator.normal(0, sd, (PROCESSES, ROUNDS))).tolist() for _ in "ab"]
        for sd in (0.005, 1.0)
    )
    assert ratio(*quiet).verdict(FLOOR) == "SAME"
    assert ratio(*loud).verdict(FLOOR) == "UNRESOLVED"


def test_what_a_process_has_in_common_widens_the_interval():
    generator = np.random.default_rng(4)
    baseline = np.ones((PROCESSES, ROUNDS))
    alike = np.exp(generator.normal(0, 0.01, (PROCESSES, ROUNDS)))
    offset = alike * np.exp(np.linspace(-0.1, 0.1, PROCESSES))[:, None]
    narrow, wide = ratio(alike.tolist(), baseline), ratio(offset.tolist(), baseline)
    assert wide.value == pytest.approx(narrow.value)
    assert np.log(wide.high / wide.low) > 5 * np.log(narrow.high / narrow.low)


def test_the_interval_of_few_rounds_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(6)
    for shape in ((1, 2), (1, 4), (5, 12)):
        hits = 0
        for _ in range(400):
            found = ratio(*np.exp(generator.normal(0, 0.05, (2, *shape))).tolist())
            hits += found.low <= 1 <= found.high
        assert hits >= 0.88 * 400, shape  # of two rounds, a bootstrap knows no more


def test_only_rounds_of_both_count():
    many, few = [[2.0, 2.0, 9.0, 9.0]], [[1.0, 1.0]]
    assert ratio(many, few) == ratio([[2.0, 2.0]], few)
    assert ratio(few, many).value == pytest.approx(0.5)


def test_noise_never_falls_below_its_floor_and_is_that_of_either_order():
    same = [[1.0] * ROUNDS] * PROCESSES
    assert noise(same, same) == FLOOR
    first, second = sample(np.random.default_rng(5), (1.0, 1.0))
    assert noise(first, second) == pytest.approx(noise(second, first))
    assert noise(first, [[2 * ms for ms in process] for process in second]) > 0.9


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
    return names


def make_call(name, *milliseconds):
    """A call that takes these times in turn, the last one from then on."""
    left = list(milliseconds)

    def call():
        return left.pop(0) if len(left) > 1 else left[0]

    call.__name__ = name
    return call


def test_calls_are_visited_to_and_fro(log):
    calls = [make_call("A", 100.0), make_call("B", 200.0), make_call("C", 300.0)]
    samples, outputs = interleave(calls, [4, 4, 4], "cpu")
    assert "".join(log) == "ABCCBA" * 2
    assert samples == [[100.0] * 4, [200.0] * 4, [300.0] * 4]
    assert [output[0].item() for output in outputs] == [100.0, 200.0, 300.0]


def test_calls_with_fewer_rounds_are_in_the_first(log):
    calls = [make_call("A", 100.0), make_call("B", 200.0), make_call("C", 300.0)]
    samples, outputs = interleave(calls, [4, 2, 4], "cpu")
    assert "".join(log) == "ABCCBA" + "ACCA"
    assert samples == [[100.0] * 4, [200.0] * 2, [300.0] * 4]
    assert [output[0].item() for output in outputs] == [100.0, 200.0, 300.0]


def test_a_sample_is_the_median_of_a_visit(log):
    usual = VISIT_MS / 4
    samples, _ = interleave([make_call("A", usual, 900.0, 900.0, usual)], [2], "cpu")
    assert samples == [[usual, usual]]
    assert len(log) == 2 * (1 + 4)


def test_a_visit_of_the_shortest_calls_ends(log):
    interleave([make_call("A", 0.0)], [2], "cpu")
    assert len(log) == 2 * (1 + VISIT_CALLS)
