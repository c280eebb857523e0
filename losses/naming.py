"""Look a name up in a list of known names, and answer a wrong one helpfully."""

import difflib
from collections.abc import Iterable


def pick(kind: str, name: str, known: Iterable[str]) -> str:
    """Return ``name`` if it is known.

    Args:
        kind: what is being named, for the message ("loss", "suite", ...).
        name: what the user wrote.
        known: the names that exist.

    Raises:
        ValueError: the name is unknown; the message suggests the nearest and lists all.
    """
    known = sorted(known)
    if name in known:
        return name
    if not known:
        raise ValueError(f"unknown {kind} {name!r}: there is none")
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    suggestion = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown {kind} {name!r}; {suggestion}known: {', '.join(known)}")
