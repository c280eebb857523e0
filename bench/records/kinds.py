"""What a field of a run file may be."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

STATUSES = ("ok", "oom", "unsupported", "invalid", "error", "timeout")
PRETRAIN, NOISE = "pretrain", "noise"
PASSES = ("forward", "forward_grad", "step", PRETRAIN, NOISE)
"""What a record is of: a pass of a loss, steps of pretraining, or a pass beside itself."""
DISTRIBUTIONS = ("local", "gather", "allreduce", "gram")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class Kind:
    """What a field must be.

    Attributes:
        says: in words.
        holds: whether a value is.
        meaning: what a field of this kind is.
    """

    says: str
    holds: Callable[[Any], bool]
    meaning: str = ""


def each(kind: Kind, /, **meanings: str) -> dict[str, Kind]:
    """Fields of a kind: name -> what it is, which ends up in docs/run-files.md."""
    return {name: replace(kind, meaning=meaning) for name, meaning in meanings.items()}


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


SHORTEST, LONGEST = 1e-9, 1e12
"""Milliseconds: neither a rounding error of a clock nor 30 years."""


def _one_of(known: tuple[str, ...]) -> Kind:
    return Kind(f"one of {', '.join(known)}", lambda value: value in known)


def _are_times(value: Any) -> bool:
    """As ``TIME``, of a whole list: most of what is read is samples."""
    if not isinstance(value, list) or not value or not {*map(type, value)} <= {int, float}:
        return False
    return min(value) >= SHORTEST and max(value) <= LONGEST and math.isfinite(sum(value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and not _UNPRINTABLE.search(value)


def _are_ceilings(value: Any) -> bool:
    """As ``bench.predicting.ceilings`` describes them."""
    if not isinstance(value, dict):
        return False
    rates, copies = value.get("gemm_gflops"), value.get("copy_gb_per_s")
    if not (rates and isinstance(rates, dict)) or not (copies and isinstance(copies, list)):
        return False
    pairs = [each for each in copies if isinstance(each, list) and len(each) == 2]
    sizes = [each[0] for each in pairs]
    numbers = [*rates.values(), *(x for each in pairs for x in each), value.get("launch_us")]
    if "link_us" in value:
        numbers += _link_numbers(value)
    holds = _number(1e-9, 1e18)
    if len(pairs) < len(copies) or not all(map(holds, numbers)):
        return False
    return sizes[0] >= 1 and sizes == sorted(set(sizes))  # a byte at least, and ascending


def _link_numbers(value: dict[str, Any]) -> list[Any]:
    """As ``bench.predicting.links`` describes them; None for one that is missing."""
    rates = value.get("link_gb_per_s")
    known = rates if isinstance(rates, dict) else {}
    return [value["link_us"], *map(known.get, ("all_gather", "all_reduce"))]


def _are_shares(value: Any) -> bool:
    return isinstance(value, list) and all(map(_number(0, LONGEST), value))


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_number(0, LONGEST), value.values()))


TEXT = Kind("a str", lambda value: isinstance(value, str) and not _SURROGATE.search(value))
LINE = Kind("a str on one line", _is_name)
NAME = Kind("a name, a str on one line", lambda value: _is_name(value) and value.strip() != "")
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
COUNT = Kind("a whole number from 1, below 2^31", _whole(1, 2**31 - 1))
AMOUNT = Kind("a number from 0", _number(0, 1e24))
NUMBER = Kind("a number", _number(-1e300, 1e300))
TIME = Kind("a time above 0 ms", _number(SHORTEST, LONGEST))
SAMPLES = Kind("a list of times above 0 ms", _are_times)
SHARES = Kind("a list of numbers from 0", _are_shares)
SIGNS = Kind("a dict of numbers from 0", _are_numbers)
FACTS = Kind("a dict", lambda value: isinstance(value, dict))
CEILINGS = Kind("the ceilings of a device", _are_ceilings)
WHOLE = Kind("a whole number", _whole(0, 2**62))
LARGE_COUNT = Kind("a whole number from 1", _whole(1, 2**62))
STATUS, PASS, DISTRIBUTION = map(_one_of, (STATUSES, PASSES, DISTRIBUTIONS))
