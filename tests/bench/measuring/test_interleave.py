"""Visits that are disturbed: taken again, within bounds, on a machine that a test commands."""

import weakref
from contextlib import nullcontext
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossbench.bench.measuring import interleave as interleave_module
from lossbench.bench.measuring.disturbance import STALLED, TAKEN, Stretch
from lossbench.bench.measuring.interleave import (
    AGAIN,
    AGAIN_SHARE,
    AGAIN_SHARE_LONG,
    LONG_S,
    interleave,
)

LONG_MS = 100.0
"""A visit is one call of this length."""


class Call:
    """A call, which takes the same time whenever the machine is its own."""

    def __init__(self, name, ms=LONG_MS):
        self.name, self.ms = name, ms


class Output:
    """What a call returns; memory is taken for as long as it is kept."""

    def __init__(self, ms):
        self.ms = ms

    def detach(self):
        return self


class Machine:
    """Its clock runs while calls do. ``visits`` says of each visit what happens: how many times as
    long as usual it takes, and which share of it is seen to be taken away.
    """

    def __init__(self, visits=()):
        self._visits = iter(visits)
        self.log = []
        """Name and seconds of each visit."""
        self.looked = {}
        """Number of a call -> of its visits, that whose output was looked at; and its output."""
        self._returned = []

    def make_timer(self, device):
        return self.time

    def time(self, call):
        # all visits find as much memory
        assert not any(output() is not None for output in self._returned)
        times, self.taken = next(self._visits, (1.0, 0.0))
        ms = times * call.ms
        self.log.append((call.name, ms / 1e3))
        output = Output(ms)
        self._returned.append(weakref.ref(output))
        return ms, (output,)

    def look(self, index, output):
        name = self.log[-1][0]
        visits = sum(visited == name for visited, _ in self.log)
        self.looked[index] = name, visits, output[0].ms

    def watch(self):
        return self  # that of the visit that comes next

    def stop(self):
        wall_s = self.log[-1][1]
        return Stretch(wall_s, wall_s, self.taken * wall_s, 0)


def run(visits, rounds, calls=None, device="cpu"):
    """A sitting on a machine, and the machine."""
    machine = Machine(visits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interleave_module, "make_timer", machine.make_timer)
        patch.setattr(interleave_module, "Watch", machine.watch)
        patch.setattr(interleave_module, "no_garbage_collection", nullcontext)  # takes long
        calls = calls or [Call(name) for name in "ABCD"[: len(rounds)]]
        return interleave(calls, rounds, device, machine.look), machine


TAKEN_AWAY = (1.5, 2 * TAKEN)
"""A visit that waited for a core."""
STALL = (10 * STALLED, 0.0)
"""One that shows nothing but its length."""
CALM = (1.0, 0.0)


def test_calm_visits_are_taken_once():
    found, machine = run([], [4, 4])
    assert "".join(name for name, _ in machine.log) == "ABBA" * 2
    assert found.samples == [[LONG_MS] * 4] * 2
    assert found.cpu_shares == [[1.0] * 4] * 2
    assert (found.disturbed, found.retaken) == ([0, 0], [0, 0])


@pytest.mark.parametrize("what", [TAKEN_AWAY, STALL])
def test_a_disturbed_visit_is_taken_again_at_once_and_the_calm_try_counts(what):
    found, machine = run([CALM] * 5 + [what], [4, 4])
    assert "".join(name for name, _ in machine.log) == "ABBAABBBA"
    assert found.samples == [[LONG_MS] * 4] * 2
    assert (found.disturbed, found.retaken) == ([0, 0], [0, 1])
    assert machine.looked == {0: ("A", 4, LONG_MS), 1: ("B", 5, LONG_MS)}


def test_of_disturbed_tries_the_least_disturbed_counts_not_the_quickest():
    quick, calmer = (1.1, 9 * TAKEN), (1.4, 2 * TAKEN)
    found, _ = run([CALM] * 18 + [quick, calmer] + [quick] * (AGAIN - 1), [20])
    assert found.samples[0][18] == pytest.approx(1.4 * LONG_MS)
    assert (found.disturbed, found.retaken) == ([1], [AGAIN])


def test_a_stall_that_comes_first_is_known_in_the_end():
    found, _ = run([STALL], [4, 4])
    assert found.samples[0][0] == 10 * STALLED * LONG_MS
    assert (found.disturbed, found.retaken) == ([1, 0], [0, 0])


def test_a_slow_spell_up_to_what_is_tolerated_is_left_as_it_is():
    found, _ = run([CALM] * 4 + [(STALLED, TAKEN)], [8])
    assert (found.disturbed, found.retaken) == ([0], [0])


def test_on_a_gpu_only_the_length_of_a_visit_tells():
    found, _ = run([CALM] * 5 + [TAKEN_AWAY, STALL], [4, 4], device="cuda")
    assert (found.disturbed, found.retaken) == ([0, 0], [0, 1])
    assert found.cpu_shares == [[], []]
    assert found.samples[1][2] == 1.5 * LONG_MS


happenings = st.lists(
    st.tuples(st.floats(1.0, 2 * STALLED), st.floats(0.0, 4 * TAKEN)), max_size=200
)
plans = st.lists(st.sampled_from([2, 4, 6, 8, 20]), min_size=1, max_size=4)


@settings(deadline=None)
@given(happenings, plans)
def test_every_round_gives_one_sample_and_what_stands_beside_it(visits, rounds):
    found, machine = run(visits, rounds)
    assert [len(samples) for samples in found.samples] == rounds
    assert [len(shares) for shares in found.cpu_shares] == rounds
    assert all(0 <= n <= of for n, of in zip(found.disturbed, rounds, strict=True))
    assert len(machine.log) == sum(rounds) + sum(found.retaken)
    assert sorted(machine.looked) == list(range(len(rounds)))
    for place, (name, visits, _) in machine.looked.items():
        assert name == "ABCD"[place]
        assert visits == rounds[place] + found.retaken[place]  # its last


def test_a_visit_is_taken_again_no_more_often_even_if_there_is_time():
    found, _ = run([CALM] * 17 + [TAKEN_AWAY] * 99, [18])
    assert (found.disturbed, found.retaken) == ([1], [AGAIN])


@settings(deadline=None)
@given(happenings)
def test_no_visit_is_taken_again_more_often_than_that(visits):
    """Of B, whose visits are apart: A B C C B A."""
    _, machine = run(visits, [20, 20, 20])
    tries = [
        len(list(same)) for name, same in groupby(name for name, _ in machine.log) if name == "B"
    ]
    assert len(tries) == 20
    assert max(tries) <= 1 + AGAIN


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=300), st.lists(st.floats(61, 1e4), min_size=1, max_size=4))
def test_taking_visits_again_costs_at_most_its_share_of_their_time(disturbed, lengths):
    visits = [(1.0, 2 * TAKEN * taken) for taken in disturbed]
    calls = [Call(str(place), ms) for place, ms in enumerate(lengths)]
    found, machine = run(visits, [20] * len(calls), calls)
    spent = sum(seconds for _, seconds in machine.log)
    visited = 20 * sum(lengths) / 1e3
    shares = [AGAIN_SHARE_LONG if ms / 1e3 > LONG_S else AGAIN_SHARE for ms in lengths]
    allowed = 20 * sum(share * ms / 1e3 for share, ms in zip(shares, lengths, strict=True))
    assert spent - visited <= allowed * (1 + 1e-9)
    again = sum(n * ms for n, ms in zip(found.retaken, lengths, strict=True)) / 1e3
    assert again == pytest.approx(spent - visited, abs=1e-6)


def test_where_all_is_disturbed_all_that_is_allowed_is_taken_again():
    visits = [TAKEN_AWAY] * 400
    for ms, share in ((LONG_MS, AGAIN_SHARE), (1100 * LONG_S, AGAIN_SHARE_LONG)):
        found, _ = run(visits, [20, 20], [Call("A", ms), Call("B", ms)])
        assert sum(found.retaken) == share * 40
        assert found.disturbed == [20, 20]


def test_a_clock_that_does_not_move_is_an_error():
    with pytest.raises(RuntimeError, match="clock stood still"):
        run([], [2], [Call("A", 0.0)])
