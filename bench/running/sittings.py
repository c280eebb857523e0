"""Cases of a group timed in turn, sitting after sitting, until their verdicts are settled."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from operator import mul
from typing import Any

from lossbench.bench.cases.case import Case
from lossbench.bench.cases.contenders import is_foreign
from lossbench.bench.comparing.baselines import comparisons
from lossbench.bench.comparing.drift import drifted
from lossbench.bench.comparing.ratios import LEAST, LOOKS, is_open, noises_of
from lossbench.bench.measuring.disturbance import beside
from lossbench.bench.measuring.interleave import LONG_S
from lossbench.bench.measuring.timing import VISIT_MS, summarise
from lossbench.bench.records.environment import content_hash
from lossbench.bench.running import groups
from lossbench.bench.running.worker import Worker

Record = dict[str, Any]
TOLD = ("samples_ms", "cpu_shares", "disturbed", "retaken")
"""What a sitting says of each case."""
TIMES = ("median_ms", "p20_ms", "p80_ms")
UNPAIRED = ("moments", "taken_shares")
"""What a record says of samples that were not taken in turn."""
PAIRS = ("pair_group", "pair_processes", "pair_looks", "pair_cut", "control_ms", "drift")
CLEAR = 3.0
"""Where a budget is short, a long case is visited once that takes so many times as long, or as
little, as all that it is compared with: one round settles that."""


@dataclass(frozen=True)
class Room:
    """What of a budget a group may take.

    Attributes:
        left_s: seconds that are left.
        later_s: of them those that later groups need: this one takes them for its fewest rounds,
            and a few of quick cases.
    """

    left_s: Callable[[], float]
    later_s: float = 0.0

    def seconds(self, wanted_s: float) -> float:
        """For a group that needs ``wanted_s``: its fewest rounds, and some more of quick cases."""
        left_s = self.left_s()
        return min(left_s, max(left_s - self.later_s, wanted_s))

    def is_short(self, wanted_s: float) -> bool:
        """Whether that is not left, or only as later groups get less than they need."""
        return self.left_s() - self.later_s < wanted_s


def compare(
    worker: Worker,
    cases: Sequence[Case],
    records: Sequence[Record],
    timeout_s: float,
    room: Room,
    save: Callable[[], None],
    earlier: Callable[[], Iterable[Mapping[str, Any]]] = tuple,
) -> str:
    """Add paired times to the records of the cases that are right; the others stay as they are.

    The quickest case is timed twice in each round, as a case and as its own control. After each
    sitting the verdicts are looked at, and the next is of the cases whose verdict is open and can
    be settled, and of those that they are compared with. Where the budget is short the slowest
    cases are visited once, or not at all: they keep the times of their evaluation.

    Args:
        worker: has just evaluated the cases; the first of the processes.
        cases: a group.
        records: its records, which are changed in place.
        timeout_s: for one sitting.
        room: what of the budget this may take.
        save: called after each sitting: what the records say is true then.
        earlier: records of the same run, which tell of its noise.

    Returns:
        What the budget did not suffice for, "" if for nothing.
    """
    right = [i for i, record in enumerate(records) if record["status"] == "ok"]
    if not right:
        return ""
    held = _fitting(cases, records, right, room)
    without = len(right) - len(held.right) if held else len(right)
    short = f"{_cases(without)} not timed in turn" if without else ""
    if held and set(held.once) - _clear(records, held.right) and not short:
        short = f"{_cases(len(held.once))} timed in one round"
    if held:
        for i, name in product(right, PAIRS):  # what an earlier session found is of other rounds
            records[i].pop(name, None)
        processes = held.processes(room)
        failure = _sit(worker, held, processes, timeout_s, room, save, earlier)
        if failure:
            _give_up(cases, records, held.right, failure)
            return compare(worker, cases, records, timeout_s, room, save, earlier)
        held.end()
        save()
        if not short and processes < held.processes(Room(lambda: float("inf"))):
            short = f"{_cases(len(right))} timed in one process"
    return f"little is left of the budget: {short}" if short else ""


def _fitting(
    cases: Sequence[Case], records: Sequence[Record], right: Sequence[int], room: Room
) -> "_Sittings | None":
    """Sittings of as many cases as there is room for, the quickest; None if for none.

    Where that is short, those that are clear are visited once. Before a case is left out, up to
    half of the others, the slowest, are too: their noise is then taken to be that of the group.
    """
    is_short = room.is_short(_Sittings(cases, records, right, ()).wanted_s)
    quickest = sorted(right, key=lambda i: float(records[i]["call_ms"]))
    for count in range(len(right), 0, -1):
        timed = sorted(quickest[:count])
        clear = _clear(records, timed) if is_short else set()
        others = [i for i in quickest[:count] if i not in clear]
        for number in range(len(others) // 2 + 1):
            once = clear.union(others[len(others) - number :])
            held = _Sittings(cases, records, timed, sorted(once))
            if held.processes(room):
                return held
    return None


def _clear(records: Sequence[Record], right: Sequence[int]) -> set[int]:
    """Long cases whose evaluation, undisturbed, leaves no doubt of how they compare."""
    times = [float(records[i]["median_ms"]) for i in right]
    pairs = comparisons([records[i] for i in right])
    doubtful = {pair for pair in pairs if 1 / CLEAR < times[pair[0]] / times[pair[1]] < CLEAR}
    clear = {right[place] for place in set(chain(*pairs)) - set(chain(*doubtful))}
    return {i for i in clear if _is_long(records[i]) and not records[i].get("disturbed")}


def _is_long(record: Record) -> bool:
    return float(record["median_ms"]) > 1e3 * LONG_S


def _cases(count: int) -> str:
    return "1 case is" if count == 1 else f"{count} cases are"


def _sit(
    worker: Worker,
    held: "_Sittings",
    processes: int,
    timeout_s: float,
    room: Room,
    save: Callable[[], None],
    earlier: Callable[[], Iterable[Mapping[str, Any]]],
) -> dict[str, Any]:
    """Sit until all is settled or the time is spent; returns what failed, nothing if all went well.

    With one process all sittings are in it, and are one to what is made of them.
    """
    timed = held.right
    seconds = groups.end_s(held.visits_s(timed), held.device, held.seconds(room))
    sittings = held.plan(processes, seconds)
    number = 0
    for look in range(sittings):
        visits_s, room_s = held.visits_s(timed), min(seconds, room.left_s())
        if not look or processes == 1:  # all processes have as many rounds as the first
            number = groups.rounds(room_s, sittings - look, visits_s)
        if look and (not number or number * sum(visits_s) > room_s):
            break
        if look and processes > 1:
            worker.stop()
        number = max(number, groups.MIN_ROUNDS)
        fewest = groups.QUICK_ROUNDS if not look and processes == 1 else number
        asked, rounds = held.asks(timed, number, fewest)
        found = worker.compare(asked, rounds, timeout_s, held.scales())
        if "status" in found:
            return found
        seconds = max(0.0, seconds - sum(map(mul, rounds, visits_s)))
        held.add(timed, found, processes)
        if look + 1 >= min(LEAST, processes):
            timed = held.open(timed, earlier(), seconds)
        if not timed:
            break
        save()
    return {}


class _Sittings:
    """Samples of the cases of a group, sitting by sitting, and what their records say of them.

    Args:
        cases: a group.
        records: its records, which are changed in place.
        right: indices of those that are timed.
        once: of them those that are visited once.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        records: Sequence[Record],
        right: Sequence[int],
        once: Sequence[int],
    ) -> None:
        self.device, self.right, self.once = cases[0].device, right, once
        self._cases, self._records = cases, records
        self._visit_s = {i: max(records[i]["call_ms"], VISIT_MS) / 1e3 for i in right}
        self._twice = min(right, key=lambda i: (self._visit_s[i], float(records[i]["call_ms"])))
        self._looks = dict.fromkeys(right, LOOKS)
        self._samples: dict[int, list[list[float]]] = {i: [] for i in right}
        self._control: list[list[float]] = []
        self._told: dict[int, list[Mapping[str, Any]]] = {i: [] for i in right}
        # unlike that of any other comparison, of the same cases too
        self._name = content_hash([time.time_ns(), *(cases[i].describe() for i in right)])

    def visits_s(self, timed: Sequence[int]) -> list[float]:
        """Seconds of a visit of each that a sitting is of."""
        return [self._visit_s[i] for i in self._order(timed)]

    def seconds(self, room: Room) -> float:
        """What it may take."""
        return room.seconds(self.wanted_s)

    def processes(self, room: Room) -> int:
        """In which it is timed, at most; 0 where there is no room for it."""
        seconds = self.seconds(room) + self._saved_s
        return groups.processes(self.visits_s(self.right), self.device, seconds)

    @property
    def wanted_s(self) -> float:
        """Seconds of the fewest rounds, and of some more of quick cases."""
        least_s = groups.MIN_ROUNDS * sum(self.visits_s(self.right)) - self._saved_s
        return least_s + groups.FURTHER_S[self.device]

    @property
    def _saved_s(self) -> float:
        """Seconds that the fewest rounds take less, as some are visited once."""
        return (groups.MIN_ROUNDS - 1) * sum(self._visit_s[i] for i in self.once)

    def plan(self, processes: int, seconds: float) -> int:
        """How many sittings there may be. How often each case may be looked at follows from it.

        Args:
            processes: in one there is a look after each sitting; in several, a sitting each, from
                the second one on.
            seconds: for all sittings: what is long leaves no time to be looked at often.
        """
        if processes > 1:
            self._looks = dict.fromkeys(self.right, processes - min(LEAST, processes) + 1)
            return processes
        spare_s = seconds - groups.MIN_ROUNDS * sum(self.visits_s(self.right)) + self._saved_s
        for i in self.right:
            if i in self.once:
                self._looks[i] = 1
                continue
            further = int(max(0.0, spare_s) / (groups.MIN_ROUNDS * self._visit_s[i]))
            self._looks[i] = min(LOOKS, 1 + further)
        return max(self._looks.values())

    def asks(
        self, timed: Sequence[int], number: int, quick_number: int
    ) -> tuple[list[Case], list[int]]:
        """What a sitting is of: cases, and rounds of each.

        Args:
            timed: those that it is of.
            number: rounds.
            quick_number: of quick cases, if that is more, and if no other case is visited again:
                rounds of later sittings are compared by their number.
        """
        order = self._order(timed)
        rounds = dict.fromkeys(order, number) | dict.fromkeys(self.once, 1)
        room_s = groups.FURTHER_S[self.device] / 2
        for i in sorted(set(order).difference(self.once), key=lambda i: self._visit_s[i]):
            room_s -= max(0, quick_number - number) * self._visit_s[i] * order.count(i)
            if room_s < 0 or self._visit_s[i] > LONG_S:
                break
            rounds[i] = max(number, quick_number)
        if any(rounds[i] < quick_number and self._looks[i] > 1 for i in order):
            rounds |= {i: number for i in order if i not in self.once}
        return [self._cases[i] for i in order], [rounds[i] for i in order]

    def scales(self) -> list[float] | None:
        """Those of all cases in the first sitting, in which the outputs are checked again.

        Its process knows most of the fp64 truths already.
        """
        if self._control:
            return None
        return [self._records[i].get("scale", 1.0) for i in self.right]

    def _order(self, timed: Sequence[int]) -> list[int]:
        """With the quickest of all a second time, as its own control."""
        return [*timed, self._twice] if self._twice in timed else list(timed)

    def add(self, timed: Sequence[int], found: Mapping[str, Any], processes: int) -> None:
        """Put what was found into the samples and records."""
        for i, said in zip(timed, found["checks"], strict=False):
            if said["status"] != "ok":
                reason = f"after it was timed, {said['reason']}"
                self._records[i].update(status=said["status"], reason=reason)
        order = self._order(timed)
        told = [{name: found[name][k] for name in TOLD if name in found} for k in range(len(order))]
        for i, each in zip(timed, told, strict=False):
            self._told[i].append(each)
            _add(self._samples[i], each["samples_ms"], processes)
        if len(order) > len(timed):
            _add(self._control, told[-1]["samples_ms"], processes)
        of_all = {**drifted(list(self._samples.values())), **found.get("state", {})}
        for i in timed:
            self._note(i, of_all)

    def _note(self, i: int, of_all: Mapping[str, Any]) -> None:
        """Say in a record what is known so far, of the case and of the whole group."""
        times = summarise(_flat(self._samples[i]))
        shared = {"pair_group": self._name, "pair_processes": len(self._samples[i])}
        shared["pair_looks"] = self._looks[i]
        told = {**shared, **beside(self._told[i]), **of_all}
        for name in UNPAIRED:
            self._records[i].pop(name, None)
        self._records[i].update({**times, **told, "pair_cut": True})
        if i == self._twice:
            self._records[i]["control_ms"] = summarise(_flat(self._control))["samples_ms"]

    def open(
        self, timed: Sequence[int], earlier: Iterable[Mapping[str, Any]], seconds: float
    ) -> list[int]:
        """Those whose verdict is open and can be settled, and what they are compared with.

        Args:
            timed: in the last sitting.
            earlier: records of the run.
            seconds: in which there may be further rounds.
        """
        own = [self._records[i] for i in self.right if self._records[i]["status"] == "ok"]
        keys = {self._records[i]["key"] for i in self.right}
        others = [each for each in earlier if each["key"] not in keys]
        right = [i for i in timed if self._records[i]["status"] == "ok"]
        noise = noises_of([*own, *others])[self._name]
        # further rounds may show that it was chance what the control differs from itself by
        later = replace(noise, control=0.0) if self._twice in right else noise
        found: set[int] = set()
        for place, base_place in comparisons([self._records[i] for i in right]):
            i, base = right[place], right[base_place]
            if i in self.once or base in self.once:
                continue
            looks = min(self._looks[i], self._looks[base])
            pair = (self._samples[i], self._samples[base], looks)
            done = len(_flat(self._samples[i]))
            further = seconds / (self._visit_s[i] + self._visit_s[base])
            if is_open(*pair, noise, later, 1 + further / done):
                found |= {i, base}
        if found and noise.control:
            found.add(self._twice)
        return [i for i in timed if i in found]

    def end(self) -> None:
        """The records say all that they will."""
        for i in self.right:
            self._records[i]["pair_cut"] = False


def _add(kept: list[list[float]], samples: Sequence[float], processes: int) -> None:
    """Add the samples of a sitting; those of one process are one."""
    if processes == 1 and kept:
        kept[0] += samples
    else:
        kept.append(list(samples))


def _flat(samples: Sequence[Sequence[float]]) -> list[float]:
    return [ms for sitting in samples for ms in sitting]


def _give_up(
    cases: Sequence[Case],
    records: Sequence[Record],
    right: Sequence[int],
    failure: Mapping[str, Any],
) -> None:
    """Mark what failed: third parties if there are any, so that ours are compared without them."""
    blamed = [i for i in right if is_foreign(cases[i])] or right
    for i in blamed:
        reason = f"in paired timing: {failure['reason']}"
        records[i].update(status=failure["status"], reason=reason)
    for i in right:
        for name in (*TIMES, *TOLD, *UNPAIRED, *PAIRS) if i in blamed else ("control_ms",):
            records[i].pop(name, None)
