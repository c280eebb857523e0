"""What options say, as text: durations, sizes, lists, settings. Imports no torch."""

import re
from collections.abc import Iterable

LEAST_BYTES = 10**8
"""Of a device that anything runs on."""


def parse_seconds(text: str) -> float:
    """Seconds of a duration such as ``90``, ``90s``, ``3m`` or ``1h30m``.

    Raises:
        ValueError: not a duration above zero.
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if match is None or not any(float(part or 0) for part in match.groups()):
        raise ValueError(f"a duration is written 90s, 3m or 1h30m, got {text!r}")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def parse_bytes(text: str) -> int:
    """Bytes of a size such as ``24GB`` (10^9) or ``500MB``.

    Raises:
        ValueError: not a size above zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(MB|GB)", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"a size is written 24GB or 500MB, got {text!r}")
    size = int(float(match[1]) * {"MB": 1e6, "GB": 1e9}[match[2].upper()])
    if not LEAST_BYTES <= size < 2**62:
        raise ValueError(f"a device has 100 MB or more, got {text!r}")
    return size


def parse_list(flag: str, text: str | None) -> list[str]:
    """The parts of a comma-separated list; none of None. Commas in brackets belong to a part.

    Raises:
        ValueError: one of them is empty.
    """
    if text is None:
        return []
    parts = [part.strip() for part in re.split(r",(?![^(]*\))", text)]
    if not all(parts):
        raise ValueError(f"{flag}: a list is written a,b,c without gaps, got {text!r}")
    return parts


def parse_numbers(flag: str, text: str | None) -> list[int]:
    """The whole numbers of a comma-separated list, in which 8..64 is 8,16,32,64; none of None.

    Raises:
        ValueError: not whole numbers, or a range whose ends are no powers of two.
    """
    try:
        return [number for part in parse_list(flag, text) for number in _numbers(part)]
    except ValueError:
        raise ValueError(
            f"{flag} needs whole numbers such as 256,2048, or powers of two such as 8..1024, "
            f"got {text!r:.60}"
        ) from None


def _numbers(text: str) -> list[int]:
    """A number, or the powers of two from one to another.

    Raises:
        ValueError: neither.
    """
    first, dots, last = text.partition("..")
    if not dots:
        return [int(text)]
    low, high = int(first), int(last)
    if not 0 < low <= high or low & (low - 1) or high & (high - 1):
        raise ValueError(text)
    return [1 << power for power in range(low.bit_length() - 1, high.bit_length())]


def parse_pairs(flag: str, texts: Iterable[str], form: str) -> dict[str, str]:
    """Settings that are given one by one as NAME=VALUE; the last of a name counts.

    Args:
        flag: which option.
        texts: what it was given.
        form: what it needs, in words.

    Raises:
        ValueError: text of another form.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not (name and value):
            raise ValueError(f"{flag} needs {form}, got {text!r}")
        found[name] = value
    return found
