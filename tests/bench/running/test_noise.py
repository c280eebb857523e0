"""How far paired timing can be believed: what is made of the samples, and what is sampled."""

import time

import numpy as np
import pytest
from command_line import assert_one_line_error, call_lossbench

from lossbench.bench.cases.case import Case
from lossbench.bench.measuring import sessions
from lossbench.bench.measuring.sessions import CALLS, SESSIONS
from lossbench.bench.running import noise as noise_module
from lossbench.bench.running.groups import PROCESSES


def sampled(comparisons, noise=0.02, **factors):
    """Samples of calls that take a millisecond, but by their factors, give or take noise."""
    generator = np.random.default_rng(0)

    def session():
        times = np.exp(generator.normal(0, noise, (len(CALLS), 4)))
        return {
            name: (factors.get(name, 1.0) * each).tolist()
            for name, each in zip(CALLS, times, strict=True)
        }

    processes = range(noise_module.processes(comparisons, "cpu"))
    return [[session() for _ in range(SESSIONS)] for _ in processes]


@pytest.mark.parametrize(
    ("comparisons", "processes"), [(1, 1), (SESSIONS, 1), (SESSIONS + 1, 2), (5 * SESSIONS, 5)]
)
def test_comparisons_share_processes_by_the_session(comparisons, processes):
    assert noise_module.processes(comparisons, "cpu") == processes * PROCESSES["cpu"]


def test_what_is_the_same_is_not_claimed_and_what_is_slower_is_found():
    comparisons = SESSIONS + 3
    trust = noise_module.judge(sampled(comparisons, slowed=1.15), comparisons, "cpu")
    assert (trust.comparisons, trust.false_claims, trust.found) == (comparisons, 0, comparisons)


@pytest.mark.parametrize("again", [0.8, 1.2])
def test_a_difference_from_itself_is_a_false_claim(again):
    assert noise_module.judge(sampled(7, again=again), 7, "cpu").false_claims == 7


def test_a_slowdown_is_not_found_where_a_call_differs_as_much_from_itself():
    assert noise_module.judge(sampled(7, control=1.3, slowed=1.15), 7, "cpu").found == 0
    assert noise_module.judge(sampled(7, noise=0.5, slowed=1.15), 7, "cpu").found == 0


def test_what_is_known_so_far_is_of_whole_comparisons():
    samples = sampled(SESSIONS + 1, slowed=1.15)
    cut = noise_module.judge(samples[: PROCESSES["cpu"] + 1], SESSIONS + 1, "cpu")
    assert cut.comparisons == SESSIONS
    assert noise_module.judge(samples[:1], SESSIONS + 1, "cpu").comparisons == 0


def test_a_process_samples_every_call_of_every_session(monkeypatch):
    monkeypatch.setattr(sessions, "SESSIONS", 2)
    monkeypatch.setattr(sessions, "ROUNDS", 4)
    found = sessions.sessions(Case("smi", batch=4, dim=8), slowdown=0.15)["sessions"]
    assert len(found) == 2
    for session in found:
        assert tuple(session) == CALLS
        assert all(len(samples) == 4 and min(samples) > 0 for samples in session.values())


def test_a_slowed_copy_takes_its_share_longer():
    spent = []

    def call():
        start = time.perf_counter()
        time.sleep(0.01)
        spent.append(time.perf_counter() - start)
        return "result"

    start = time.perf_counter()
    assert sessions._slowed(call, 0.5)() == "result"
    assert time.perf_counter() - start >= 1.5 * spent[0]


def test_a_case_that_fails_is_named_with_its_reason():
    case = Case("barlow_twins", "own", batch=4, dim=8, contender="third_party:raises")
    with pytest.raises(RuntimeError, match=r"barlow_twins-own-4x8.*there is no loss"):
        next(noise_module.sample(case, 1, 0.15, timeout_s=60))


@pytest.mark.parametrize("bad", [("--comparisons", "0"), ("--slowdown", "0")])
def test_a_comparison_that_cannot_be_made_is_refused(bad):
    assert_one_line_error(call_lossbench("noise", "--loss", "smi", *bad), "--comparisons of at")
