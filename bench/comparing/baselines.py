"""Which records of a group that was timed in turn are compared with which."""

from collections.abc import Mapping, Sequence
from typing import Any

HEADLINE = "smi"
"""Loss whose reference, and whose best, tables compare all others with."""


def baseline(records: Sequence[Mapping[str, Any]], index: int) -> int | None:
    """Index of the record that a record's time is compared with, None for what has no other.

    That is the reference of its loss and hyperparameters; where a group holds references alone, or
    none, its first record.

    Args:
        records: of a group.
        index: of a record.
    """
    references = [i for i, each in enumerate(records) if each["implementation"] == "reference"]
    if len(references) in (0, len(records)):
        return 0 if index else None
    own = (i for i in references if _what(records[i]) == _what(records[index]))
    found = next(own, index)
    return None if found == index else found


def comparisons(records: Sequence[Mapping[str, Any]]) -> set[tuple[int, int]]:
    """Contender and baseline of every ratio that tables show of a group."""
    pairs = [(i, baseline(records, i)) for i in range(len(records))]
    headline = [
        i
        for i, each in enumerate(records)
        if _what(each)[:2] == (HEADLINE, "") and not each.get("contender")
    ]
    if headline:
        bases = (
            min(headline, key=lambda i: records[i]["implementation"] != "reference"),
            min(headline, key=lambda i: records[i]["median_ms"]),
        )
        pairs += [(i, base) for i in range(len(records)) for base in bases]
    pairs += [(i, _best(records, i)) for i, each in enumerate(records) if each.get("contender")]
    return {(i, base) for i, base in pairs if base is not None and base != i}


def _best(records: Sequence[Mapping[str, Any]], index: int) -> int | None:
    """Our fastest implementation of what a third party's is of."""
    ours = [
        i
        for i, each in enumerate(records)
        if not each.get("contender") and _what(each) == _what(records[index])
    ]
    return min(ours, key=lambda i: records[i]["median_ms"], default=None)


def _what(record: Mapping[str, Any]) -> tuple[str, ...]:
    return record["loss"], record.get("variant", ""), record["distribution"]
